"""From what is missing to byte ranges worth a request each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.quantities import ceil_div

LONGEST_RANGE = 16 * CHUNK_SIZE
"""256 MiB: two seconds of a connection at 1 Gbit/s. What a lost connection had received of it is not lost."""


def chunk_count(size: int) -> int:
    """How many chunks a file of `size` bytes has; an empty file has none."""
    return ceil_div(size, CHUNK_SIZE)


def chunk_range(index: int, size: int) -> ByteRange:
    """The bytes of chunk `index` of a file of `size` bytes."""
    return ByteRange(index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, size))


def missing_ranges(size: int, *, held: Collection[int]) -> Iterator[ByteRange]:
    """The chunks of a file of `size` bytes that are not `held`, neighbours joined, in order."""
    start: int | None = None
    for index in range(chunk_count(size) + 1):
        here = index * CHUNK_SIZE
        wanted = here < size and index not in held
        if start is not None and not wanted:
            yield ByteRange(start, min(here, size))
            start = None
        if wanted and start is None:
            start = here
