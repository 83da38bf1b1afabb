"""Decides which byte range a free connection pulls next. The decision is synchronous, so tests need no network.

Up to 16 files are open, as many as are hashed together; the largest are opened first. The file with the fewest active ranges
gets the next connection. The ranges of a file are assigned front to back, so that its hash frontier does not lag. While too
many bytes wait to be hashed, only a file without active ranges gets a range: its frontier waits for exactly that range, so the
rule cannot deadlock. When no range is pending, an idle connection steals the later half of the range that would last longest.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Collection, Iterable

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.quantities import ceil_div
from fetcher.sources.base import Turn
from fetcher.values import dataclass

OPEN = 16
"""Files: the lanes of the widest vector unit (`integrity.lanes.MOST`)."""
WORTH = 2.0
"""Seconds. A range that ends sooner is not stolen: stealing costs the other connection and a request."""


@dataclass(slots=True, eq=False)
class Assignment:
    """Pull file `path` from `start` to `stop`. `stop` moves down when another connection steals the rest.

    A `stop` of None means the whole file, from a source that cannot send parts. `turn`: who is asked, if the source decides.
    """

    path: str
    start: int
    stop: int | None
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of an assignment: the next byte to receive, and bytes a second."""

    assignment: Assignment
    position: int
    rate: float

    @property
    def seconds_left(self) -> float:
        if self.assignment.stop is None:
            return 0.0
        return (self.assignment.stop - self.position) / max(self.rate, 1.0)


class Schedule:
    """Pending and active ranges of all files; `missing` bytes are pending. `__repr__` shows the numbers of ranges."""

    least = 0
    """The ranges that may be under way at least, however many connections the link seems to need."""

    def __init__(self) -> None:
        self._pending: dict[str, list[ByteRange | None]] = {}
        self._active: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._turn = itertools.count()
        self.missing = 0
        self._open: set[str] = set()
        self._unopened: list[tuple[int, str]] = []

    def add(self, path: str, ranges: Iterable[ByteRange | None], *, size: int) -> None:
        """Make `ranges` of `path`, a file of `size` bytes, pending."""
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

    def assign(
        self, *, longest: int = sys.maxsize, lagging: bool = False, among: Collection[str] | None = None
    ) -> Assignment | None:
        """Activate and return the next range, of whole chunks and up to `longest` bytes; None if there is none now. `among`:
        only of these files."""
        self._open_more()
        allowed = self._open if among is None else self._open.intersection(among)
        candidates = [path for path in allowed if not lagging or not self._active[path]]
        if not candidates:
            return None
        path = min(candidates, key=lambda each: (self._active[each], self._turns[each]))
        byte_range = self._cut(self._pending[path].pop(), path, longest)
        self.missing -= _bytes([byte_range])
        if not self._pending[path]:
            self._open.discard(path)
        self._turns[path] = next(self._turn)
        return self._activated(path, byte_range)

    def take(self, turn: Turn) -> Assignment | None:
        """Activate and return the first pending range within a turn; None if there is none."""
        pending = self._pending.get(turn.path, [])
        for number in range(len(pending) - 1, -1, -1):  # the first range is the last one there
            each = pending[number]
            if each is None or each.start >= turn.part.stop or turn.part.start >= each.stop:
                continue
            start, stop = max(each.start, turn.part.start), min(each.stop, turn.part.stop)
            rest = [ByteRange(stop, each.stop), ByteRange(each.start, start)]
            pending[number : number + 1] = [part for part in rest if len(part)]
            self.missing -= stop - start
            if not pending:
                self._open.discard(turn.path)
            self._turns[turn.path] = next(self._turn)
            self._active[turn.path] += 1
            return Assignment(turn.path, start, stop, turn)
        return None

    def pending(self, path: str) -> list[ByteRange]:
        """Return the pending ranges of a file, of which parts can be sent."""
        return [each for each in self._pending.get(path, ()) if each is not None]

    def look(self, active: Iterable[Progress], *, connections: int) -> None:
        """Nobody else decides what comes next."""

    def steal(self, active: Iterable[Progress]) -> Assignment | None:
        """Return the later half of the range that would last longest, from a chunk boundary on. Cuts its assignment short."""
        for slowest in sorted(active, key=lambda each: each.seconds_left, reverse=True):
            assignment = slowest.assignment
            if slowest.seconds_left < WORTH or assignment.stop is None:
                return None
            middle = _next_boundary((slowest.position + assignment.stop) // 2)
            boundary = min(middle, _last_boundary(assignment.stop))
            if slowest.position < boundary < assignment.stop:
                rest = ByteRange(boundary, assignment.stop)
                assignment.stop = boundary
                return self._activated(assignment.path, rest)
        return None

    def recall(self, active: Iterable[Progress]) -> None:
        """Cut the assignments of `active` short behind the chunk that each of them has begun. The rest is pending again."""
        for each in active:
            boundary, stop = _next_boundary(each.position + 1), each.assignment.stop
            if stop is not None and boundary < stop:
                each.assignment.stop = boundary
                self.add(each.assignment.path, [ByteRange(boundary, stop)], size=0)

    def finish(self, assignment: Assignment) -> None:
        """Record that the range is no longer active. Its missing rest must be added again."""
        self._active[assignment.path] -= 1

    def clear(self, path: str) -> None:
        """Remove the pending ranges of `path`."""
        self.missing -= _bytes(self._pending.get(path, ()))
        self._pending[path] = []
        self._open.discard(path)

    @property
    def open_files(self) -> int:
        """Number of files that share the connections now."""
        return len(self._open)

    def active(self, path: str) -> int:
        """Return the number of active ranges of `path`."""
        return self._active.get(path, 0)

    def _open_more(self) -> None:
        while len(self._open) < OPEN and self._unopened:
            _, path = heapq.heappop(self._unopened)
            # A new file gets its turn after the waiting files, in the order of size.
            self._turns[path] = next(self._turn)
            if self._pending[path]:
                self._open.add(path)

    def _cut(self, byte_range: ByteRange | None, path: str, longest: int) -> ByteRange | None:
        if byte_range is None or len(byte_range) <= longest:
            return byte_range
        boundary = max(_last_boundary(byte_range.start + longest + 1), _next_boundary(byte_range.start + 1))
        if boundary >= byte_range.stop:
            return byte_range
        self._pending[path].append(ByteRange(boundary, byte_range.stop))
        return ByteRange(byte_range.start, boundary)

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


def _next_boundary(position: int) -> int:
    return ceil_div(position, CHUNK_SIZE) * CHUNK_SIZE


def _last_boundary(stop: int) -> int:
    return (stop - 1) // CHUNK_SIZE * CHUNK_SIZE
