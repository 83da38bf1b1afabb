"""All events so far, as a few numbers: what every renderer shows. Pure but for the clock that is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fetcher.events import (
    BytesDiscarded,
    BytesHashed,
    BytesReceived,
    Committing,
    ConnectionsActive,
    Event,
    FileVerified,
    Finished,
    LeaseWaiting,
    Planned,
    Resolving,
)

WINDOW = 10.0
"""Seconds over which the rate is taken: long enough to be readable, short enough to show that something stopped."""


_PHASES: dict[type[Event], str] = {
    Resolving: "resolving",
    LeaseWaiting: "waiting for another process",
    Planned: "fetching",
    BytesDiscarded: "fetching",
    Committing: "committing",
    Finished: "done",
}


@dataclass(slots=True)
class Tally:
    """Bytes `done` of `total` are here (held or received), `hashed` of them checked; `phase` is what goes on now."""

    clock: Callable[[], float]
    phase: str = "starting"
    total: int = 0
    done: int = 0
    fetched: int = 0
    hashed: int = 0
    files: int = 0
    verified: int = 0
    connections: int = 0
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, event: Event) -> None:
        self.phase = _PHASES.get(type(event), self.phase)
        match event:
            case Planned():
                self.total, self.done, self.files = event.total, event.held, event.files
            case BytesReceived():
                self._received(event.bytes)
            case BytesDiscarded():
                self.done = max(0, self.done - event.bytes)
            case BytesHashed():
                self.hashed += event.bytes
            case ConnectionsActive():
                self.connections = event.active
            case FileVerified():
                self.verified += 1

    def _received(self, count: int) -> None:
        self.done += count
        self.fetched += count
        self._mark()
        if self.total and self.done >= self.total:
            self.phase = "verifying"

    def rate(self) -> float:
        """Bytes a second received over the last `WINDOW` seconds."""
        now = self.clock()
        while self._marks and self._marks[0][0] < now - WINDOW:
            self._marks.popleft()
        if not self._marks:
            return 0.0
        first, before = self._marks[0]
        return (self.fetched - before) / max(now - first, 0.5)

    def seconds_left(self) -> float | None:
        """None while nothing moves."""
        rate = self.rate()
        return (self.total - self.done) / rate if rate > 0 else None

    def _mark(self) -> None:
        now = self.clock()
        # At most ten marks a second, so that a window is a hundred of them.
        if not self._marks or now - self._marks[-1][0] >= 0.1:
            self._marks.append((now, self.fetched))
