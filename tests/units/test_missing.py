"""What is still to be fetched of a file: to the byte, in order, in as few ranges as there are gaps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.planning.ranges import chunk_count, chunk_range, missing_ranges

SIZES = st.integers(0, 12 * CHUNK_SIZE) | st.builds(
    lambda count, more: count * CHUNK_SIZE + more, st.integers(1, 12), st.integers(-1, 1)
)
"""Bytes; those around a whole number of chunks often enough to be tried."""
HELD = st.sets(st.integers(0, 13))


def test_of_a_new_file_everything_in_one_range() -> None:
    assert list(missing_ranges(5 * CHUNK_SIZE + 7, held=())) == [ByteRange(0, 5 * CHUNK_SIZE + 7)]


@pytest.mark.parametrize("size", [1, CHUNK_SIZE, CHUNK_SIZE + 1])
def test_of_a_whole_file_nothing(size: int) -> None:
    assert list(missing_ranges(size, held=range(chunk_count(size)))) == []


def test_of_an_empty_file_nothing_even_if_nothing_is_held() -> None:
    assert list(missing_ranges(0, held=())) == []


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ({0}, [ByteRange(CHUNK_SIZE, 3 * CHUNK_SIZE + 7)]),
        ({1}, [ByteRange(0, CHUNK_SIZE), ByteRange(2 * CHUNK_SIZE, 3 * CHUNK_SIZE + 7)]),
        ({3}, [ByteRange(0, 3 * CHUNK_SIZE)]),
        ({0, 1, 2}, [ByteRange(3 * CHUNK_SIZE, 3 * CHUNK_SIZE + 7)]),
        ({0, 2}, [ByteRange(CHUNK_SIZE, 2 * CHUNK_SIZE), ByteRange(3 * CHUNK_SIZE, 3 * CHUNK_SIZE + 7)]),
    ],
)
def test_the_last_range_ends_with_the_file_and_not_with_its_chunk(held: set[int], missing: list[ByteRange]) -> None:
    assert list(missing_ranges(3 * CHUNK_SIZE + 7, held=held)) == missing


@given(SIZES, HELD)
def test_missing_and_held_together_are_every_byte_once(size: int, held: set[int]) -> None:
    have = [chunk_range(index, size) for index in held if index < chunk_count(size)]
    parts = sorted([*missing_ranges(size, held=held), *have])
    assert [0, *(part.stop for part in parts)] == [*(part.start for part in parts), size]
    assert all(parts)


@given(SIZES, HELD)
def test_no_two_neighbours_are_asked_for_apart(size: int, held: set[int]) -> None:
    found = list(missing_ranges(size, held=held))
    assert all(before.stop < after.start for before, after in itertools.pairwise(found))
