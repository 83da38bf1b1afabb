"""One range on one connection: its received bytes, its times, and the way to abandon it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field

from fetcher.artifact import ORIGIN
from fetcher.engine.schedule import Assignment
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Mark:
    """A count of bytes, at a time or within a time in seconds."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.count / max(self.seconds, 1e-3)


@dataclass(slots=True, eq=False)
class Pull:
    """A running assignment: the bytes received so far, and the scope that can abandon it.

    `supplier` brings its bytes, once the source has answered. `body_since` is the time of the first byte of the body, None
    before it: only a body can trickle.
    """

    assignment: Assignment
    scope: asyncio.Timeout
    clock: Callable[[], float] = time.monotonic
    received: int = 0
    promised: int = 0
    """Bytes that a thread may be writing now. They belong to this connection even if the assignment is cut short meanwhile."""
    asked_at: float = field(init=False)
    body_since: float | None = None
    why: str = ""
    supplier: str = ORIGIN
    _compared: Mark = field(init=False)
    _measured: Mark = field(init=False)
    _held_up: float = 0.0
    _held_up_since: float | None = None

    def __post_init__(self) -> None:
        self.asked_at = self.clock()
        self._compared = self._measured = Mark(0, self.asked_at)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Within the block the connection waits for this process. That is no time in which it could have brought more."""
        self._held_up_since = began = self.clock()
        try:
            yield
        finally:
            self._held_up_since = None
            self._held_up += self.clock() - began

    def _now(self) -> float:
        """Return the time, without all that the connection was held up."""
        return (self._held_up_since or self.clock()) - self._held_up

    @property
    def path(self) -> str:
        return self.assignment.path

    @property
    def position(self) -> int:
        """The next byte to receive."""
        return self.assignment.start + self.received

    def left(self, room: int) -> int:
        """Return how many of `room` bytes still belong to the assignment, which may have been cut short."""
        return room if self.assignment.stop is None else max(0, min(room, self.assignment.stop - self.position))

    def came(self, count: int) -> None:
        """Record `count` received bytes of the body."""
        if self.body_since is None:
            self.body_since = self._now()
            self._compared = self._measured = Mark(0, self.body_since)
        self.received += count

    @property
    def body_seconds(self) -> float:
        """Seconds since the first byte of the body."""
        return 0.0 if self.body_since is None else self._now() - self.body_since

    @property
    def since_compared(self) -> Mark:
        """Bytes and seconds since the last comparison with other pulls; zero before the body begins."""
        return self._since(self._compared)

    @property
    def since_measured(self) -> Mark:
        """Bytes and seconds since the pull last brought enough; zero before the body begins."""
        return self._since(self._measured)

    def compared(self) -> None:
        """Record that the pull was compared with others now."""
        self._compared = Mark(self.received, self._now())

    def measured(self) -> None:
        """Record that the pull brought enough until now."""
        self._measured = Mark(self.received, self._now())

    def _since(self, mark: Mark) -> Mark:
        if self.body_since is None:
            return Mark(0, 0.0)
        return Mark(self.received - mark.count, self._now() - mark.seconds)

    def abandon(self, why: str) -> None:
        """End the pull as if it had timed out; `why` completes "a connection ..."."""
        self.why = why
        with suppress(RuntimeError):  # it has already ended
            self.scope.reschedule(asyncio.get_running_loop().time())
