"""How fast: the overall limit a user sets, and what counts as far too slow."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

LEAST = 64 * 1024
"""Bytes that a whole `--timeout-stall` of body time must bring: with 30 s some 2 KiB/s, as good as stalled. Less is no
progress either."""
LONGEST_GRACE = 4
"""Times its window that a connection is given at most, after those before it were replaced."""


class RateLimit:
    """At most `rate` bytes a second over all connections, None for no limit; bursts of up to a quarter of a second."""

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
        """How many bytes to receive at once into a buffer of `size`: a tenth of a second's worth, so that it does not jerk."""
        return size if self._rate is None else max(1, min(size, int(self._rate / 10)))

    async def spend(self, count: int) -> None:
        """Wait until `count` more bytes are within the limit."""
        if self._rate is None:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - 0.25) + count / self._rate
        if self._free_at > now:
            await self._sleep(self._free_at - now)


class TrickleJudge:
    """Tells connections that are far slower than their siblings, which a stall deadline never catches.

    A connection that has no sibling is never called slow: nobody knows what the link can do. It may only be `dead`.
    """

    FRACTION = 0.05
    """Of the median. CDN edges differ by factors of two to five; twenty is a broken path."""

    def __init__(self, window: float, *, patience: float, least: int = LEAST) -> None:
        """`window` seconds between two looks at a connection, `patience` seconds in which `least` bytes must come."""
        self.window = window
        self.patience = patience
        self._least = least
        self._finished: deque[float] = deque(maxlen=16)
        self._of_file: dict[str, deque[float]] = {}
        self._replaced: Counter[str] = Counter()

    def finished(self, path: str, rate: float) -> None:
        """A range of a file came to its end at `rate` bytes a second of body time."""
        self._finished.append(rate)
        self._of_file.setdefault(path, deque(maxlen=16)).append(rate)

    def sealed(self, path: str) -> None:
        """The file is complete: what was known of its connections is of no more use."""
        self._of_file.pop(path, None)
        self._replaced.pop(path, None)

    def alike(self, path: str) -> Sequence[float]:
        """The rates of ranges of the same file that finished lately. They are siblings as good as those that run: without them
        a broken path would carry the last range for hours, when all others are done."""
        return tuple(self._of_file.get(path, ()))

    def replaced(self, path: str) -> None:
        """A connection of the file was replaced: the one that takes its place is given twice as long."""
        self._replaced[path] += 1

    def grace(self, path: str) -> float:
        """How many times longer a connection of the file is given."""
        return float(min(2 ** self._replaced[path], LONGEST_GRACE))

    @property
    def typical(self) -> float:
        """The rate of those that finished lately; without end while there is none."""
        return statistics.median(self._finished) if self._finished else math.inf

    def slow(self, rate: float, siblings: Sequence[float]) -> bool:
        """Whether a connection is far slower than its siblings, of which the `alike` are some. All in bytes a second."""
        return bool(siblings) and rate < self.FRACTION * statistics.median(siblings)

    def dead(self, count: int, seconds: float, path: str) -> bool:
        """Whether `count` bytes in `seconds` of body time are as good as none."""
        return seconds >= self.patience * self.grace(path) and count < self._least


class Gain:
    """Whether bytes amount to progress: `least` of them within `window` seconds. A trickle never does."""

    def __init__(self, window: float, *, least: int = LEAST, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._least = least
        self._clock = clock
        self._since = clock()
        self._count = 0

    def add(self, count: int) -> bool:
        """`count` more bytes have come that were never here before."""
        now = self._clock()
        if now - self._since > self._window:
            self._since, self._count = now, 0
        self._count += count
        if self._count < self._least or not count:
            return False
        self._since, self._count = now, 0
        return True
