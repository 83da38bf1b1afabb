"""All events so far, as a few numbers: what every renderer shows. Pure but for the clock that is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fetcher.events import (
    BytesDiscarded,
    BytesHashed,
    BytesLoaded,
    BytesReceived,
    Committing,
    ConnectionsActive,
    Copied,
    Event,
    FileVerified,
    Finished,
    LeaseWaiting,
    LoadEnded,
    LoadPlanned,
    Planned,
    Resolved,
    Resolving,
    Warmed,
)

WINDOW = 10.0
"""Seconds over which a rate is taken: long enough to be readable, short enough to show that something stopped."""
STILL = 3.0
"""Seconds without a byte after which no time left is told: the rate of the window sinks until it says days."""

Phase = Literal[
    "starting",
    "resolving",
    "waiting",
    "preparing",
    "fetching",
    "verifying",
    "committing",
    "warming",
    "loading",
    "copying",
    "done",
]

_PHASES: dict[type[Event], Phase] = {
    Resolving: "resolving",
    Resolved: "preparing",
    LeaseWaiting: "waiting",
    BytesDiscarded: "fetching",
    Committing: "committing",
    Finished: "done",
    LoadEnded: "done",
    Warmed: "done",
    Copied: "done",
}


class Meter:
    """A running count and its rate."""

    __slots__ = ("_clock", "_last", "_marks", "count")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()
        self._last = clock()
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count
        self._last = now = self._clock()
        # At most ten marks a second, so that a window is a hundred of them.
        if not self._marks or now - self._marks[-1][0] >= 0.1:
            self._marks.append((now, self.count))

    @property
    def moving(self) -> bool:
        """Whether anything came during the last `STILL` seconds."""
        return bool(self._marks) and self._clock() - self._last <= STILL

    def rate(self) -> float:
        """How much a second over the last `WINDOW` seconds."""
        now = self._clock()
        while self._marks and self._marks[0][0] < now - WINDOW:
            self._marks.popleft()
        if not self._marks:
            return 0.0
        first, before = self._marks[0]
        return (self.count - before) / max(now - first, 0.5)


@dataclass(slots=True)
class Tally:
    """Bytes `done` of `total` are here (`held` before, or received), `hashed` of them checked; `phase` is what goes on now.

    `total` is 0 while nobody knows it: before the plan, and for a file whose source does not tell its size.
    """

    clock: Callable[[], float]
    phase: Phase = "starting"
    total: int = 0
    done: int = 0
    held: int = 0
    files: int = 0
    verified: int = 0
    connections: int = 0
    received: Meter = field(init=False)
    checked: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.received, self.checked = Meter(self.clock), Meter(self.clock)

    def add(self, event: Event) -> None:
        self.phase = _PHASES.get(type(event), self.phase)
        match event:
            case Planned():
                self._plan(event.files, event.total, event.held)
                self.phase = "fetching" if event.connections and not self._complete() else "verifying"
            case LoadPlanned():
                self._plan(event.files, event.total, event.held)
                self.phase = event.doing
            case Copied() if event.cached:
                self._plan(event.files, event.bytes, event.bytes)
            case BytesReceived() | BytesLoaded():
                self.received.add(event.bytes)
                self.done += event.bytes
                if self.phase == "fetching" and self._complete():
                    self.phase = "verifying"
            case BytesDiscarded():
                self.done = max(0, self.done - event.bytes)
            case BytesHashed():
                self.checked.add(event.bytes)
            case ConnectionsActive():
                self.connections = event.active
            case FileVerified():
                self.verified += 1

    @property
    def fetched(self) -> int:
        """Bytes that came from the source."""
        return self.received.count

    @property
    def hashed(self) -> int:
        """Bytes checked; what was fetched twice counts once."""
        return min(self.checked.count, self.total) if self.total else self.checked.count

    @property
    def position(self) -> int:
        """How much of `total` the present phase has behind it."""
        return self.hashed if self.phase == "verifying" else self.done

    def rate(self) -> float:
        """Bytes a second that the present phase gets through."""
        return (self.checked if self.phase == "verifying" else self.received).rate()

    def seconds_left(self) -> float | None:
        """Of the present phase; None while nothing moves, or nobody knows how much is to come."""
        rate, missing = self.rate(), self.total - self.position
        moving = (self.checked if self.phase == "verifying" else self.received).moving
        return missing / rate if moving and rate > 0 and missing >= 0 and self.total else None

    def _plan(self, files: int, total: int, held: int) -> None:
        self.files, self.total, self.held, self.done = files, total, held, held

    def _complete(self) -> bool:
        return self.done >= self.total > 0
