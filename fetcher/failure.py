"""Reduces the errors of a TaskGroup to the one that explains the failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fetcher.errors import FetchError, LeaseLost, Transient


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def most_telling(error: BaseException) -> BaseException:
    """Return the most important error: a lost lease, then a final error, then a transient error, then any other."""

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
    """Raise the most important error of a group instead of the group."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise most_telling(group) from group
