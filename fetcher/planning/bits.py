"""Sets of chunks as numbers: bit `i` is chunk `i` of an artifact."""

from __future__ import annotations

from bisect import bisect_right
from random import Random
from typing import TYPE_CHECKING

from fetcher.values import dataclass

if TYPE_CHECKING:
    from fetcher.planning.ownership import Layout


def span(first: int, count: int) -> int:
    """The `count` chunks from `first` on."""
    return ((1 << count) - 1) << first


def lowest(chunks: int) -> int:
    return (chunks & -chunks).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of a layout that have chunks begin."""

    starts: tuple[int, ...]
    count: int

    @classmethod
    def of(cls, layout: Layout) -> Files:
        return cls(tuple(start for start, stop in layout.spans() if stop > start), layout.chunks)

    def stop(self, chunk: int) -> int:
        """The chunk behind the file that `chunk` is in."""
        number = bisect_right(self.starts, chunk)
        return self.starts[number] if number < len(self.starts) else self.count

    def near(self, left: int, *, files: int, window: int) -> int:
        """Those of the chunks `left` that are among the first of the first files with any."""
        near = 0
        for _ in range(files):
            if not left:
                break
            first = lowest(left)
            stop = self.stop(first)
            near |= left & span(first, min(window, stop - first))
            left = left >> stop << stop
        return near

    def run(self, chunks: int, first: int, most: int) -> int:
        """How many of `chunks` follow each other from `first` on, in its file; at most `most`, and at least 1."""
        length = lowest(~(chunks >> first))
        return max(1, min(length, most, self.stop(first) - first))

    def one_of(self, chunks: int, random: Random) -> int:
        """One of the chunks, at random: the first behind a random place."""
        behind = random.randrange(self.count)
        after = chunks >> behind
        return behind + lowest(after) if after else lowest(chunks)
