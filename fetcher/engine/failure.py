"""One error out of many: what a TaskGroup raises, reduced to what a person needs to hear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fetcher.errors import FetchError, LeaseLost, Transient


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def most_telling(error: BaseException) -> BaseException:
    """A lost lease explains everything after it; then what is final; then what gave up; then what nobody expected."""

    def rank(each: BaseException) -> int:
        match each:
            case LeaseLost():
                return 0
            case Transient():
                return 2
            case FetchError():
                return 1
        return 3

    return min(leaves(error), key=rank)


@contextmanager
def one_error() -> Iterator[None]:
    """Raise the most telling error of a group in its stead."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise most_telling(group) from group
