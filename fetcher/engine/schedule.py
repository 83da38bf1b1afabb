"""Which byte range a free connection pulls next: a synchronous decision, so that it can be tested without a network.

Files share the connections evenly (the one with fewest active ranges goes first, larger ones before smaller), and each file is
handed out front to back, so that its hash frontier does not lag. While too much is written but not yet hashed, only a file
on which nothing is active gets a range: its frontier needs exactly that range, so the rule can't lock up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from fetcher.artifact import ByteRange


@dataclass(frozen=True, slots=True)
class Assignment:
    """Pull `byte_range` of file `path`; None means all of it, from a source that can't send parts."""

    path: str
    byte_range: ByteRange | None


class Schedule:
    """Pending and active ranges of all files. `__repr__` shows both counts."""

    def __init__(self) -> None:
        self._pending: dict[str, list[ByteRange | None]] = {}
        self._active: dict[str, int] = {}
        self._weight: dict[str, int] = {}
        self._queue: list[tuple[int, int, str]] = []

    def add(self, path: str, ranges: Iterable[ByteRange | None], *, size: int) -> None:
        """More to pull of `path`. Larger files (by `size`) come first among equals."""
        self._weight[path] = size
        self._active.setdefault(path, 0)
        pending = self._pending.setdefault(path, [])
        pending.extend(ranges)
        pending.sort(key=_start, reverse=True)
        self._enqueue(path)

    def take(self, *, lagging: bool = False) -> Assignment | None:
        """The next range, now active; None when there is nothing to hand out at present."""
        held_back: list[tuple[int, int, str]] = []
        found: Assignment | None = None
        while self._queue and found is None:
            entry = heapq.heappop(self._queue)
            active, _, path = entry
            if active != self._active[path] or not self._pending[path]:
                continue  # outdated: a newer entry is in the queue, or nothing is pending
            if lagging and active:
                held_back.append(entry)
                break  # all that follow have as many active ranges or more
            found = Assignment(path, self._pending[path].pop())
            self._active[path] += 1
            self._enqueue(path)
        for entry in held_back:
            heapq.heappush(self._queue, entry)
        return found

    def finish(self, assignment: Assignment) -> None:
        """The range is no longer active; what is missing of it must be added again."""
        self._active[assignment.path] -= 1
        self._enqueue(assignment.path)

    def clear(self, path: str) -> None:
        """Forget what is pending of `path`."""
        self._pending[path] = []

    def active(self, path: str) -> int:
        return self._active.get(path, 0)

    def _enqueue(self, path: str) -> None:
        if self._pending[path]:
            heapq.heappush(self._queue, (self._active[path], -self._weight[path], path))

    def __repr__(self) -> str:
        pending = sum(len(ranges) for ranges in self._pending.values())
        return f"<Schedule [ranges: {sum(self._active.values())} active, {pending} pending]>"


def _start(byte_range: ByteRange | None) -> int:
    return byte_range.start if byte_range else 0
