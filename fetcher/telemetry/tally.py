"""The numbers that every renderer shows, summed from events. Pure except for the clock that is passed in."""

from __future__ import annotations

import math
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
    Verified,
    Warmed,
)

WINDOW = 10.0
"""Seconds over which a rate is measured: long enough to be readable, short enough to show a stall."""
STILL = 3.0
"""Seconds without a byte that count as a stall: an estimate from the last rate would only grow."""
LONGEST_ESTIMATE = 48 * 3600.0
"""Seconds. A rate measured over ten seconds does not predict days."""

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
    Verified: "done",
}


class Meter:
    """A running count and its rate."""

    __slots__ = ("_clock", "_last", "_marks", "count")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last = -math.inf
        self._marks: deque[tuple[float, int]] = deque()
        self.count = 0

    def add(self, count: int) -> None:
        self.count += count
        now = self._last = self._clock()
        # At most ten marks a second, so a window holds a hundred.
        if not self._marks or now - self._marks[-1][0] >= 0.1:
            self._marks.append((now, self.count))

    @property
    def moving(self) -> bool:
        """Whether bytes were counted within the last `STILL` seconds."""
        return self._clock() - self._last < STILL

    def rate(self) -> float:
        """Return the count per second over the last `WINDOW` seconds."""
        now = self._clock()
        while self._marks and self._marks[0][0] < now - WINDOW:
            self._marks.popleft()
        if not self._marks:
            return 0.0
        first, before = self._marks[0]
        return (self.count - before) / max(now - first, 0.5)


@dataclass(slots=True)
class Tally:
    """Progress in bytes: `done` of `total` are present (`held` before the start, or received), and `hashed` are checked.

    `total` is 0 while unknown: before the plan, and for a file whose source does not give its size.
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
        """Bytes received from the source."""
        return self.received.count

    @property
    def hashed(self) -> int:
        """Bytes checked; bytes fetched twice count once."""
        return min(self.checked.count, self.total) if self.total else self.checked.count

    @property
    def position(self) -> int:
        """Bytes of `total` that the present phase has finished."""
        return self.hashed if self.phase == "verifying" else self.done

    @property
    def _meter(self) -> Meter:
        return self.checked if self.phase == "verifying" else self.received

    def rate(self) -> float:
        """Return the bytes per second of the present phase."""
        return self._meter.rate()

    def seconds_left(self) -> float | None:
        """Return the seconds left of the present phase; None during a stall, for an unknown total, or beyond two days."""
        rate, missing = self.rate(), self.total - self.position
        if rate <= 0 or missing < 0 or not self.total or not self._meter.moving:
            return None
        left = missing / rate
        return left if left < LONGEST_ESTIMATE else None

    def _plan(self, files: int, total: int, held: int) -> None:
        self.files, self.total, self.held, self.done = files, total, held, held

    def _complete(self) -> bool:
        return self.done >= self.total > 0
