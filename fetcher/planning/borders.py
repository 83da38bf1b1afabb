"""Where the parts of an upload end: a checksum of checksums needs one of each part, and parts end inside chunks. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate


class Borders:
    """The ends of parts, in bytes from the start of the file. `uploads` are the sizes of the parts of each upload."""

    __slots__ = ("_ends", "_sorted")

    def __init__(self, uploads: Iterable[Sequence[int]]) -> None:
        self._ends = frozenset(end for parts in uploads for end in accumulate(parts))
        self._sorted = sorted(self._ends)

    def __contains__(self, position: int) -> bool:
        return position in self._ends

    def cut(self, data: memoryview, position: int) -> Iterator[memoryview]:
        """Yield `data`, which begins at byte `position` of the file, in pieces that no part ends inside of."""
        for end in self._sorted[bisect_right(self._sorted, position) :]:
            if end >= position + len(data):
                break
            yield data[: end - position]
            data, position = data[end - position :], end
        if data:
            yield data
