"""A person sees the one of several errors that explains the others."""

from __future__ import annotations

import itertools

import pytest

from fetcher.errors import DigestMismatch, LeaseLost, OutOfSpace, Unreachable
from fetcher.failure import leaves, most_telling, one_error

BY_WEIGHT = [LeaseLost("taken over"), OutOfSpace("full"), Unreachable("down"), RuntimeError("a bug")]


@pytest.mark.parametrize("errors", list(itertools.permutations(BY_WEIGHT, 3)))
def test_the_most_important_error_wins_in_any_order(errors: tuple[Exception, ...]) -> None:
    assert most_telling(ExceptionGroup("several", errors)) is min(errors, key=BY_WEIGHT.index)


def test_the_first_of_two_equally_important_errors_wins() -> None:
    first, second = DigestMismatch("a"), OutOfSpace("b")
    assert most_telling(ExceptionGroup("two", [first, second])) is first


def test_nested_groups_are_searched() -> None:
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", errors[:2]), errors[2]])
    assert list(leaves(nested)) == errors


def test_a_single_error_is_returned_unchanged() -> None:
    error = Unreachable("down")
    assert most_telling(error) is error


def test_a_group_is_raised_as_one_error_with_the_group_as_cause() -> None:
    group = ExceptionGroup("several", [Unreachable("down"), OutOfSpace("full")])
    with pytest.raises(OutOfSpace) as caught, one_error():
        raise group
    assert caught.value.__cause__ is group


def test_an_error_outside_a_group_is_raised_unchanged() -> None:
    error = OutOfSpace("full")
    with pytest.raises(OutOfSpace) as caught, one_error():
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
