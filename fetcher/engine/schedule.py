"""Which byte range a free connection pulls next: a synchronous decision, so that it can be tested without a network.

Up to 16 files are open at once, as many as are hashed together; larger ones are opened first. They take turns, the one with
fewest active ranges first, and each is handed out front to back, so that its hash frontier does not lag. While too much is
written but not yet hashed, only a file on which nothing is active gets a range: its frontier needs exactly that range, so the
rule can't lock up. When nothing is left to hand out, an idle connection steals the later part of the range that would last
longest.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.quantities import ceil_div

OPEN = 16
"""Files: the lanes of the widest vector unit (`integrity.lanes.MOST`)."""
WORTH = 2.0
"""Seconds. What ends sooner by itself is not stolen: it costs the connection that was at it, and a request."""


@dataclass(slots=True, eq=False)
class Assignment:
    """Pull file `path` from `start` to `stop`; `stop` may come nearer meanwhile, when another connection steals the rest.

    None means all of it, from a source that can't send parts.
    """

    path: str
    start: int
    stop: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an assignment is: the next byte to come, and bytes a second."""

    assignment: Assignment
    position: int
    rate: float

    @property
    def seconds_left(self) -> float:
        if self.assignment.stop is None:
            return 0.0
        return (self.assignment.stop - self.position) / max(self.rate, 1.0)


class Schedule:
    """Pending and active ranges of all files; `missing` bytes are pending. `__repr__` shows how many ranges."""

    def __init__(self) -> None:
        self._pending: dict[str, list[ByteRange | None]] = {}
        self._active: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._turn = itertools.count()
        self.missing = 0
        self._open: set[str] = set()
        self._begun: set[str] = set()
        self._unopened: list[tuple[int, str]] = []

    def add(self, path: str, ranges: Iterable[ByteRange | None], *, size: int) -> None:
        """More to pull of `path`, a file of `size` bytes."""
        known = path in self._active
        pending = self._pending.setdefault(path, [])
        ranges = list(ranges)
        self.missing += _bytes(ranges)
        pending.extend(ranges)
        pending.sort(key=_start, reverse=True)
        self._active.setdefault(path, 0)
        if path in self._turns and pending:
            self._open.add(path)
        elif not known:
            heapq.heappush(self._unopened, (-size, path))

    def assign(self, *, longest: int = sys.maxsize, lagging: bool = False, begin: bool = True) -> Assignment | None:
        """The next range, of whole chunks up to `longest` bytes, now active; None when there is nothing at present.
        Without `begin` it is one of a file that was begun before."""
        self._open_more()
        candidates = [path for path in self._open if (begin or path in self._begun) and (not lagging or not self._active[path])]
        if not candidates:
            return None
        path = min(candidates, key=lambda each: (self._active[each], self._turns[each]))
        byte_range = self._cut(self._pending[path].pop(), path, longest)
        self.missing -= _bytes([byte_range])
        if not self._pending[path]:
            self._open.discard(path)
        self._turns[path] = next(self._turn)
        self._begun.add(path)
        return self._activated(path, byte_range)

    def steal(self, active: Iterable[Progress]) -> Assignment | None:
        """The later half, from a chunk's border on, of the range that would last longest; its own assignment is cut short."""
        for slowest in sorted(active, key=lambda each: each.seconds_left, reverse=True):
            assignment = slowest.assignment
            if slowest.seconds_left < WORTH or assignment.stop is None:
                return None
            middle = _next_border((slowest.position + assignment.stop) // 2)
            border = min(middle, _last_border(assignment.stop))
            if slowest.position < border < assignment.stop:
                rest = ByteRange(border, assignment.stop)
                assignment.stop = border
                return self._activated(assignment.path, rest)
        return None

    def finish(self, assignment: Assignment) -> None:
        """The range is no longer active; what is missing of it must be added again."""
        self._active[assignment.path] -= 1

    def clear(self, path: str) -> None:
        """Forget what is pending of `path`."""
        self.missing -= _bytes(self._pending.get(path, ()))
        self._pending[path] = []
        self._open.discard(path)

    @property
    def open_files(self) -> int:
        """How many files share the connections now."""
        return len(self._open)

    def active(self, path: str) -> int:
        return self._active.get(path, 0)

    def _open_more(self) -> None:
        while len(self._open) < OPEN and self._unopened:
            _, path = heapq.heappop(self._unopened)
            # A new file comes after those that wait already, in the order of size.
            self._turns[path] = next(self._turn)
            if self._pending[path]:
                self._open.add(path)

    def _cut(self, byte_range: ByteRange | None, path: str, longest: int) -> ByteRange | None:
        if byte_range is None or len(byte_range) <= longest:
            return byte_range
        border = max(_last_border(byte_range.start + longest + 1), _next_border(byte_range.start + 1))
        if border >= byte_range.stop:
            return byte_range
        self._pending[path].append(ByteRange(border, byte_range.stop))
        return ByteRange(byte_range.start, border)

    def _activated(self, path: str, byte_range: ByteRange | None) -> Assignment:
        self._active[path] += 1
        if byte_range is None:
            return Assignment(path, 0, None)
        return Assignment(path, byte_range.start, byte_range.stop)

    def __repr__(self) -> str:
        pending = sum(len(ranges) for ranges in self._pending.values())
        return f"<Schedule [ranges: {sum(self._active.values())} active, {pending} pending]>"


def _bytes(ranges: Iterable[ByteRange | None]) -> int:
    return sum(len(byte_range) for byte_range in ranges if byte_range)


def _start(byte_range: ByteRange | None) -> int:
    return byte_range.start if byte_range else 0


def _next_border(position: int) -> int:
    return ceil_div(position, CHUNK_SIZE) * CHUNK_SIZE


def _last_border(stop: int) -> int:
    return (stop - 1) // CHUNK_SIZE * CHUNK_SIZE
