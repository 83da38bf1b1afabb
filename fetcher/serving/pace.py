"""How fast uploads may be together, and how slow a reader may be. Pure but for the clock that is passed in."""

from __future__ import annotations

import threading
from collections.abc import Callable

STEP = 1024 * 1024
"""Bytes that an upload sends before it looks at the clock: at 10 Gbit/s a millisecond."""
FIRST = 64 * 1024
"""Bytes that a reader is sent at first, and again after it was slow. With TLS they count when all of them are sent, so they are
a small part of what the slowest reader takes in `PATIENCE`."""
PATIENCE = 30.0
"""Seconds that a reader may take without having read `LEAST` bytes a second on average."""
LEAST = 16 * 1024
"""Bytes a second. The slowest link that is worth an upload's place; without it a reader could hold the place for ever."""
_SOON = 1.0
"""Seconds in which a reader that may be sent more at once has taken what it was sent."""
_BURST = 0.25
"""Seconds of the rate that may be sent at once after a pause."""


class Rate:
    """A limit of bytes a second for all uploads together; None for none. For any thread."""

    def __init__(self, limit: float | None, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._free_at = 0.0
        self._lock = threading.Lock()

    @property
    def step(self) -> int:
        """The most bytes to take at once, so that uploads share the rate evenly."""
        return STEP if self._limit is None else max(4096, min(STEP, int(self._limit * _BURST / 4)))

    def take(self, count: int) -> float:
        """Take `count` bytes of the rate. Return the seconds to wait before they may be sent."""
        if self._limit is None:
            return 0.0
        with self._lock:
            now = self._clock()
            begins = max(self._free_at, now - _BURST)
            self._free_at = begins + count / self._limit
            return max(0.0, begins - now)


class Reader:
    """The patience with one reader. Only the seconds in which the server waited for it count.

    `step`: the most bytes to send it at once.
    """

    def __init__(self) -> None:
        self.step = FIRST
        self._waited = 0.0
        self._read = 0

    def took(self, count: int, seconds: float) -> bool:
        """Count that sending `count` bytes took `seconds`. Return whether the reader is too slow."""
        self._read += count
        self._waited += seconds
        self.step = min(STEP, 2 * self.step) if seconds < _SOON else FIRST
        return self._waited > PATIENCE and self._read < LEAST * self._waited
