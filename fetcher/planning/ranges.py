"""Turns missing chunks into byte ranges, each worth a request."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.quantities import ceil_div

LONGEST_RANGE = 16 * CHUNK_SIZE
"""256 MiB: two seconds of a connection at 1 Gbit/s. A lost connection does not lose what it received."""


def chunk_count(size: int) -> int:
    """Return the number of chunks of a file of `size` bytes; an empty file has none."""
    return ceil_div(size, CHUNK_SIZE)


def chunk_range(index: int, size: int) -> ByteRange:
    """Return the bytes of chunk `index` in a file of `size` bytes."""
    return ByteRange(index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, size))


def missing_ranges(size: int, *, held: Collection[int]) -> Iterator[ByteRange]:
    """Yield the chunks of a file of `size` bytes that are not `held`, in order, with neighbours joined."""
    start: int | None = None
    for index in range(chunk_count(size) + 1):
        position = index * CHUNK_SIZE
        wanted = position < size and index not in held
        if start is not None and not wanted:
            yield ByteRange(start, min(position, size))
            start = None
        if wanted and start is None:
            start = position
