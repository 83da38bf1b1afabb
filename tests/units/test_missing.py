"""The missing ranges of a file: exact, in order, one range per gap."""

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
"""Sizes in bytes, often near a whole number of chunks."""
HELD = st.sets(st.integers(0, 13))


def test_a_new_file_is_missing_in_one_range() -> None:
    assert list(missing_ranges(5 * CHUNK_SIZE + 7, held=())) == [ByteRange(0, 5 * CHUNK_SIZE + 7)]


@pytest.mark.parametrize("size", [1, CHUNK_SIZE, CHUNK_SIZE + 1])
def test_a_complete_file_misses_nothing(size: int) -> None:
    assert list(missing_ranges(size, held=range(chunk_count(size)))) == []


def test_an_empty_file_misses_nothing() -> None:
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
def test_the_last_range_ends_at_the_end_of_the_file(held: set[int], missing: list[ByteRange]) -> None:
    assert list(missing_ranges(3 * CHUNK_SIZE + 7, held=held)) == missing


@given(SIZES, HELD)
def test_missing_and_held_ranges_cover_every_byte_once(size: int, held: set[int]) -> None:
    have = [chunk_range(index, size) for index in held if index < chunk_count(size)]
    parts = sorted([*missing_ranges(size, held=held), *have])
    assert [0, *(part.stop for part in parts)] == [*(part.start for part in parts), size]
    assert all(parts)


@given(SIZES, HELD)
def test_neighbouring_chunks_are_one_range(size: int, held: set[int]) -> None:
    found = list(missing_ranges(size, held=held))
    assert all(before.stop < after.start for before, after in itertools.pairwise(found))
