"""One range on its way over one connection: how much came, since when, and how it is ended from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fetcher.engine.schedule import Assignment


@dataclass(frozen=True, slots=True)
class Mark:
    """So many bytes, at or in so many seconds."""

    count: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.count / max(self.seconds, 1e-3)


@dataclass(slots=True, eq=False)
class Pull:
    """An assignment in the making: bytes received so far, and the scope by which it can be abandoned.

    `body_since` is when the first byte of its body came, None while the answer is waited for: only a body can trickle.
    """

    assignment: Assignment
    scope: asyncio.Timeout
    clock: Callable[[], float] = time.monotonic
    received: int = 0
    promised: int = 0
    """Bytes that a thread may be writing just now: they are this connection's, wherever the assignment ends by then."""
    asked_at: float = field(init=False)
    body_since: float | None = None
    why: str = ""
    _compared: Mark = field(init=False)
    _measured: Mark = field(init=False)

    def __post_init__(self) -> None:
        self.asked_at = self.clock()
        self._compared = self._measured = Mark(0, self.asked_at)

    @property
    def path(self) -> str:
        return self.assignment.path

    @property
    def position(self) -> int:
        """The next byte to come."""
        return self.assignment.start + self.received

    def left(self, room: int) -> int:
        """How many of `room` bytes still belong to the assignment, whose end may have come nearer."""
        return room if self.assignment.stop is None else max(0, min(room, self.assignment.stop - self.position))

    def came(self, count: int) -> None:
        """`count` more bytes of the body are here."""
        if self.body_since is None:
            self.body_since = self.clock()
            self._compared = self._measured = Mark(0, self.body_since)
        self.received += count

    @property
    def body_seconds(self) -> float:
        return 0.0 if self.body_since is None else self.clock() - self.body_since

    @property
    def since_compared(self) -> Mark:
        """Bytes and seconds since it was last compared with others; no seconds at all before its body begins."""
        return self._since(self._compared)

    @property
    def since_measured(self) -> Mark:
        """Bytes and seconds since it was last found to bring enough."""
        return self._since(self._measured)

    def compared(self) -> None:
        self._compared = Mark(self.received, self.clock())

    def measured(self) -> None:
        self._measured = Mark(self.received, self.clock())

    def _since(self, mark: Mark) -> Mark:
        if self.body_since is None:
            return Mark(0, 0.0)
        return Mark(self.received - mark.count, self.clock() - mark.seconds)

    def abandon(self, why: str) -> None:
        """End it as if it had timed out; `why` completes "a connection ..."."""
        self.why = why
        with suppress(RuntimeError):  # it has just ended by itself
            self.scope.reschedule(asyncio.get_running_loop().time())
