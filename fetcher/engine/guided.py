"""The schedule of a transfer whose source decides which range comes next: it knows who has which chunks (`sources.base.Guide`).

Files that the guide does not cover, and all files while it is idle, are scheduled as without it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable

from fetcher.artifact import ByteRange
from fetcher.engine.schedule import Assignment, Progress, Schedule
from fetcher.planning.swarm import MANY
from fetcher.sources.base import Guide


class GuidedSchedule:
    """The same as a `Schedule`, in the order of `guide`."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._covered, self._others = Schedule(), Schedule()
        self._in_one_piece: set[str] = set()
        self._whose: dict[Assignment, Schedule] = {}
        self._was_idle = True
        self._connections = 1

    def _covers(self, path: str) -> bool:
        return path not in self._in_one_piece and self._guide.covers(path)

    @property
    def least(self) -> int:
        """`Schedule.least`: a guide asks many suppliers, and some of them are slow."""
        return 0 if self._guide.idle() else MANY

    @property
    def missing(self) -> int:
        return self._covered.missing + self._others.missing

    @property
    def open_files(self) -> int:
        return self._covered.open_files + self._others.open_files

    def active(self, path: str) -> int:
        return self._covered.active(path) + self._others.active(path)

    def add(self, path: str, ranges: Iterable[ByteRange | None], *, size: int) -> None:
        """`Schedule.add`. A file that the origin turns out to send only in one piece is its own."""
        ranges = list(ranges)
        if None in ranges:
            self._in_one_piece.add(path)
        (self._covered if self._covers(path) else self._others).add(path, ranges, size=size)
        self._tell(path)

    def clear(self, path: str) -> None:
        for schedule in (self._covered, self._others):
            schedule.clear(path)
        self._tell(path)

    def finish(self, assignment: Assignment) -> None:
        self._whose.pop(assignment).finish(assignment)
        if assignment.turn is not None:
            assignment.turn.over()
            self._tell(assignment.path)

    def assign(
        self, *, longest: int = sys.maxsize, lagging: bool = False, among: Collection[str] | None = None
    ) -> Assignment | None:
        """`Schedule.assign`. A turn of the guide may lag: only what its suppliers have can come now."""
        for schedule in (self._others, self._covered) if self._guide.idle() else (self._others,):
            found = schedule.assign(longest=longest, lagging=lagging, among=among)
            if found is not None:
                self._tell(found.path)
                return self._noted(found, schedule)
        return None if self._guide.idle() else self._guided(longest, among)

    def _guided(self, longest: int, among: Collection[str] | None) -> Assignment | None:
        """The next turn of which something is pending. Of files that are here already the guide is told only now."""
        while (turn := self._guide.next(connections=self._connections, longest=longest, among=among)) is not None:
            if (found := self._covered.take(turn)) is not None:
                return self._noted(found, self._covered)
            turn.over()
            self._tell(turn.path)
        return None

    def look(self, active: Iterable[Progress], *, connections: int) -> None:
        """Take note of what is under way, and of how many ranges may be. Once the guide has something to decide, take back what
        was assigned without it: others may bring that."""
        self._connections = connections
        before, self._was_idle = self._was_idle, self._guide.idle()
        if not before or self._was_idle:
            return
        free = [each for each in active if self._whose.get(each.assignment) is self._covered and each.assignment.turn is None]
        self._covered.recall(free)
        for each in free:
            self._tell(each.assignment.path)

    def steal(self, active: Iterable[Progress]) -> Assignment | None:
        """`Schedule.steal`. While the guide decides, its turns are nobody else's: they are short."""
        schedules = (self._others, self._covered) if self._guide.idle() else (self._others,)
        all_active = list(active) if any(each in schedules for each in self._whose.values()) else []
        for schedule in schedules:
            candidates = [each for each in all_active if self._whose.get(each.assignment) is schedule]
            if (stolen := schedule.steal(candidates)) is not None:
                return self._noted(stolen, schedule)
        return None

    def _noted(self, assignment: Assignment, schedule: Schedule) -> Assignment:
        self._whose[assignment] = schedule
        return assignment

    def _tell(self, path: str) -> None:
        if self._guide.covers(path):
            self._guide.left(path, self._covered.pending(path))

    def __repr__(self) -> str:
        return f"<GuidedSchedule {self._covered!r}, {self._others!r}>"
