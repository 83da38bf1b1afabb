"""From what is missing to byte ranges worth a request each."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fetcher.artifact import CHUNK_SIZE, ByteRange

LONGEST_RANGE = 4 * CHUNK_SIZE
"""64 MiB. At 1 GB/s a connection that is a request every 64 ms, against which a round trip of 20 ms is hidden by the other
connections; at 10 MB/s a lost connection costs seconds, not minutes."""


def chunk_count(size: int) -> int:
    """How many chunks a file of `size` bytes has; an empty file has none."""
    return -(-size // CHUNK_SIZE)


def chunk_range(index: int, size: int) -> ByteRange:
    """The bytes of chunk `index` of a file of `size` bytes."""
    return ByteRange(index * CHUNK_SIZE, min((index + 1) * CHUNK_SIZE, size))


def range_length(missing: int, connections: int) -> int:
    """How long one request should be, in bytes: whole chunks, short enough that every connection gets about four."""
    wanted = missing // (4 * max(connections, 1))
    return max(CHUNK_SIZE, min(LONGEST_RANGE, wanted // CHUNK_SIZE * CHUNK_SIZE))


def missing_ranges(size: int, *, held: Collection[int], longest: int) -> Iterator[ByteRange]:
    """The chunks of a file of `size` bytes that are not `held`, neighbours joined up to `longest` bytes, in order."""
    start: int | None = None
    for index in range(chunk_count(size) + 1):
        here = index * CHUNK_SIZE
        wanted = here < size and index not in held
        if start is not None and (not wanted or here - start >= longest):
            yield ByteRange(start, min(here, size))
            start = None
        if wanted and start is None:
            start = here
