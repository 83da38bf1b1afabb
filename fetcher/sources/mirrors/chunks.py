"""The chunks of an artifact: by number, as a swarm has them, and by ranges of files, as a fetch has them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.planning.bits import span
from fetcher.planning.ranges import chunk_count
from fetcher.quantities import ceil_div


class Chunks:
    """The chunks of files of these sizes in bytes, numbered through in their order (`planning.ownership.Layout`).

    Sets of chunks are numbers: bit `i` is chunk `i`.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes
        self._paths = [path for path, size in sizes.items() if size]
        self._spans: dict[str, tuple[int, int]] = {}
        self.count = 0
        for path in self._paths:
            self._spans[path] = self.count, chunk_count(sizes[path])
            self.count += chunk_count(sizes[path])
        self._starts = [start for start, _ in self._spans.values()]

    def __contains__(self, path: str) -> bool:
        """Whether a file has chunks."""
        return path in self._spans

    def span(self, path: str) -> tuple[int, int]:
        """The first chunk of a file, and how many it has."""
        return self._spans[path]

    def of(self, path: str) -> int:
        """All chunks of a file."""
        return span(*self._spans[path])

    def within(self, path: str, ranges: Sequence[ByteRange]) -> int:
        """The chunks of a file that any of `ranges` touches."""
        start, chunks = self._spans[path][0], 0
        for each in ranges:
            first, stop = each.start // CHUNK_SIZE, ceil_div(each.stop, CHUNK_SIZE)
            chunks |= span(start + first, stop - first)
        return chunks

    def part(self, chunk: int, count: int) -> tuple[str, ByteRange]:
        """The file and the range of `count` chunks from `chunk` on, all of one file."""
        number = bisect_right(self._starts, chunk) - 1
        path, first = self._paths[number], chunk - self._starts[number]
        return path, ByteRange(first * CHUNK_SIZE, min((first + count) * CHUNK_SIZE, self._sizes[path]))
