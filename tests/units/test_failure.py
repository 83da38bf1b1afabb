"""Of many errors at once a person hears the one that explains the others."""

from __future__ import annotations

import itertools

import pytest

from fetcher.engine.failure import leaves, most_telling, one_error
from fetcher.errors import DigestMismatch, LeaseLost, OutOfSpace, Unreachable

BY_WEIGHT = [LeaseLost("taken over"), OutOfSpace("full"), Unreachable("down"), RuntimeError("a bug")]


@pytest.mark.parametrize("errors", list(itertools.permutations(BY_WEIGHT, 3)))
def test_the_most_telling_one_wins_in_any_order(errors: tuple[Exception, ...]) -> None:
    assert most_telling(ExceptionGroup("several", errors)) is min(errors, key=BY_WEIGHT.index)


def test_of_two_that_weigh_the_same_the_first_is_told() -> None:
    first, second = DigestMismatch("a"), OutOfSpace("b")
    assert most_telling(ExceptionGroup("two", [first, second])) is first


def test_groups_in_groups_are_looked_into() -> None:
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", errors[:2]), errors[2]])
    assert list(leaves(nested)) == errors


def test_an_error_alone_is_itself() -> None:
    error = Unreachable("down")
    assert most_telling(error) is error


def test_a_group_is_raised_as_one_error_that_remembers_the_rest() -> None:
    group = ExceptionGroup("several", [Unreachable("down"), OutOfSpace("full")])
    with pytest.raises(OutOfSpace) as caught, one_error():
        raise group
    assert caught.value.__cause__ is group


def test_what_is_no_group_passes_as_it_is() -> None:
    error = OutOfSpace("full")
    with pytest.raises(OutOfSpace) as caught, one_error():
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
