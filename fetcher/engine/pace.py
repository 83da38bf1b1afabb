"""The rate limit that a user sets, and the rules for connections that are too slow."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

from fetcher.artifact import ORIGIN
from fetcher.quantities import median

LEAST = 64 * 1024
"""Minimum bytes within `--timeout-stall` of body time: with 30 s some 2 KiB/s, which is as good as stalled. Less is not
progress either."""
LONGEST_GRACE = 4
"""Maximum factor on the window of a connection, after earlier connections were replaced."""


class RateLimit:
    """A limit of `rate` bytes a second for all connections together, None for no limit. Allows bursts of a quarter second."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    @property
    def limited(self) -> bool:
        return self._rate is not None

    def piece(self, size: int) -> int:
        """Return the bytes to receive at once into a buffer of `size`: a tenth of a second's worth, for a smooth flow."""
        return size if self._rate is None else max(1, min(size, int(self._rate / 10)))

    async def spend(self, count: int) -> None:
        """Wait until `count` more bytes are within the limit."""
        if self._rate is None:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - 0.25) + count / self._rate
        if self._free_at > now:
            await self._sleep(self._free_at - now)


class ReadingPace:
    """A limit of `rate` bytes a second for all reading threads together, None for no limit. Thread-safe."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._turn = threading.Lock()

    def spend(self, count: int) -> None:
        """Wait until the `count` bytes that were read are within the limit. Other threads wait for their turn meanwhile."""
        if self._rate is None:
            return
        with self._turn:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self._rate
            self._sleep(self._free_at - now)


class SlowConnectionDetector:
    """Finds connections that are far slower than their siblings, which a stall timeout never catches.

    A connection without siblings is never `slow`, since the rate of the link is unknown. It can only be `dead`.
    """

    FRACTION = 0.05
    """Fraction of the median. CDN edges differ by factors of two to five; a factor of twenty is a broken path."""

    def __init__(self, window: float, *, patience: float, least: int = LEAST) -> None:
        """`window`: seconds between two checks of a connection. `patience`: seconds in which `least` bytes must arrive."""
        self.window = window
        self.patience = patience
        self._least = least
        self._finished: deque[float] = deque(maxlen=16)
        self._of_file: dict[str, dict[str, deque[float]]] = {}
        self._replaced: Counter[str] = Counter()

    def finished(self, path: str, rate: float, supplier: str = ORIGIN) -> None:
        """Record that a range of a file, brought by `supplier`, finished at `rate` bytes a second of body time."""
        self._finished.append(rate)
        self._of_file.setdefault(path, {}).setdefault(supplier, deque(maxlen=16)).append(rate)

    def sealed(self, path: str) -> None:
        """Forget the connections of a complete file."""
        self._of_file.pop(path, None)
        self._replaced.pop(path, None)

    def alike(self, path: str, supplier: str = ORIGIN) -> Sequence[float]:
        """Return the rates of recently finished ranges of the file by the same supplier. They count as siblings: otherwise a
        broken path could carry the last range for hours, after all other ranges are done."""
        return tuple(self._of_file.get(path, {}).get(supplier, ()))

    def replaced(self, path: str) -> None:
        """Record that a connection of the file was replaced: the next one gets twice the time."""
        self._replaced[path] += 1

    def grace(self, path: str) -> float:
        """Return the factor on the time that a connection of the file gets."""
        return float(min(2 ** self._replaced[path], LONGEST_GRACE))

    @property
    def typical(self) -> float:
        """The median rate of recently finished ranges; infinite before the first one."""
        return median(self._finished) if self._finished else math.inf

    def slow(self, rate: float, siblings: Sequence[float]) -> bool:
        """Whether a connection is far slower than its siblings, which include the `alike`. All in bytes a second."""
        return bool(siblings) and rate < self.FRACTION * median(siblings)

    def dead(self, count: int, seconds: float, path: str) -> bool:
        """Whether `count` bytes in `seconds` of body time count as none."""
        return seconds >= self.patience * self.grace(path) and count < self._least


class ProgressWindow:
    """Decides whether bytes are progress: `least` of them within `window` seconds. A trickle never is."""

    def __init__(self, window: float, *, least: int = LEAST, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._least = least
        self._clock = clock
        self._since = clock()
        self._count = 0

    def add(self, count: int) -> bool:
        """Record `count` new bytes, and return whether they complete some progress."""
        now = self._clock()
        if now - self._since > self._window:
            self._since, self._count = now, 0
        self._count += count
        if self._count < self._least or not count:
            return False
        self._since, self._count = now, 0
        return True
