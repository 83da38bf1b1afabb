"""How fast: the overall limit a user sets, and what counts as far too slow."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

FLOOR = 1024.0
"""Bytes a second below which a connection is as good as stalled, whatever the others do."""


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

    async def take(self, count: int) -> None:
        """Wait until `count` more bytes are within the limit."""
        if self._rate is None:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - 0.25) + count / self._rate
        if self._free_at > now:
            await self._sleep(self._free_at - now)


class TrickleJudge:
    """Tells connections that are far slower than their siblings, which a stall deadline never catches.

    A connection is judged by its bytes in the last `window` seconds, against the median of the others and of those that
    finished lately (so that the last one left is judged too).
    """

    FRACTION = 0.05
    """Of the median. CDN edges differ by factors of two to five; twenty is a broken path."""

    def __init__(self, window: float, *, floor: float) -> None:
        self.window = window
        self._floor = floor
        self._finished: deque[float] = deque(maxlen=16)

    def finished(self, rate: float) -> None:
        """A range came to its end at `rate` bytes a second."""
        self._finished.append(rate)

    @property
    def typical(self) -> float:
        """The rate of those that finished lately; without end while there is none."""
        return statistics.median(self._finished) if self._finished else math.inf

    def slow(self, rates: Sequence[float | None]) -> list[int]:
        """Which of the connections should be replaced; None stands for one too young to be judged."""
        judged = []
        for index, rate in enumerate(rates):
            others = [other for at, other in enumerate(rates) if at != index and other is not None]
            others.extend(self._finished)
            bar = max(self._floor, self.FRACTION * statistics.median(others) if others else 0.0)
            if rate is not None and rate < bar:
                judged.append(index)
        return judged
