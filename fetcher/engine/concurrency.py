"""Adapts the number of connections to the link while the transfer runs. Pure: the caller passes the clock in.

::

    growing    double the number; keep it while each step brings more bytes a second, else return to the step before
    holding    keep the number for a while, then try half as many more: the rate of a link changes
    refused    429, or 503 with Retry-After: a third fewer immediately, and no more than that for some time
    failing    connections break, or answers get slower without a higher rate: a quarter fewer

A link that one connection fills keeps few connections; a link that caps each connection gets many. In simulation this reaches
95 % of the capacity of a link for transfers of half a minute and more (`tests/engine/test_concurrency.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fetcher.quantities import median

START = 8
"""Connections. One to four fill a fast local link, 16 and more fill a long one; eight are two steps from both."""
FEW = 4
"""Connections that overload no link: late answers then have another cause (other users of the link, or this machine)."""
SETTLE, MEASURE = 0.5, 1.0
"""Seconds between a change and its measurement, and seconds of the measurement. Connections and congestion windows open during
the first. While growing both are halved: a step doubles the number, so noise matters less."""
GAIN = 1.06
"""A step up is kept if it brings 6 % more: round trips between ranges cost more than that on a long link with too few."""
HOLD = 15.0
"""Seconds from one attempt at a higher level to the next."""
WORK = 2.0
"""Minimum seconds for a range, which also takes at least forty round trips: waiting for answers is a fortieth of the time."""
CAUTION = 60.0
"""Seconds without growth after a server refused. The Hub's windows are minutes."""


class Concurrency:
    """The number of `connections` that may be active now, at most `most`. The caller reports what happens on each of them."""

    def __init__(self, most: int, *, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self.connections = min(START, most)
        self._before: tuple[int, float] | None = None
        """The level before the last step up, and its bytes a second; None while holding."""
        self._growing = True
        self._ceiling = most
        self._cautious_until = -math.inf
        self._grow_at = -math.inf
        self._reduced_at = -math.inf
        self._latencies: list[float] = []
        self._quickest = math.inf
        self._rate = 0.0
        self._begin()

    def received(self, count: int) -> None:
        """Record `count` received bytes."""
        now = self._clock()
        if now >= self._since:
            self._bytes += count
        if now >= self._since + MEASURE * self._pace:
            self._measured(self._bytes / (now - self._since), now)

    def answered(self, seconds: float) -> None:
        """Record the seconds from a request to the beginning of its answer."""
        self._quickest = min(self._quickest, seconds)
        self._latencies.append(seconds)

    def refused(self) -> None:
        """Record that the server asked for fewer requests (429, or 503 with Retry-After)."""
        now = self._clock()
        self._cautious_until = now + CAUTION
        self._reduce(2 / 3, now)
        self._ceiling = self.connections

    def failed(self) -> None:
        """Record that a connection broke, stalled or could not be opened."""
        self._reduce(3 / 4, self._clock())

    def range_length(self, missing: int, *, shortest: int, longest: int) -> int:
        """Return the bytes for the next request, with `missing` bytes pending: near the end, half of a connection's share."""
        each = max(1, self.connections)
        seconds = max(WORK, 40 * self._quickest if self._quickest < math.inf else 0.0)
        wanted = self._rate / each * seconds if self._rate else 4.0 * shortest
        return int(max(shortest, min(longest, wanted, missing / (2 * each))))

    def _measured(self, rate: float, now: float) -> None:
        self._rate = rate
        if self._before is not None:
            level, doubled = self._before[0], self._growing
            self._growing = rate >= GAIN * self._before[1]
            if not self._growing:
                # After doubling, an eighth more than the level before: some connections are always between two ranges.
                self.connections = min(self._ceiling, math.ceil(level * 1.125)) if doubled else level
                self._grow_at = now + HOLD
        elif self._slower_answers() and self.connections > FEW:
            self._reduce(3 / 4, now)
        self._before = None
        if now >= self._cautious_until:
            self._ceiling = self._most
        if self.connections < self._ceiling and (self._growing or now >= self._grow_at):
            self._before = (self.connections, rate)
            step = 2.0 if self._growing else 1.5
            self.connections = min(self._ceiling, math.ceil(self.connections * step))
            self._grow_at = now + HOLD
        self._begin()

    def _slower_answers(self) -> bool:
        """Whether answers got slower. Requests beyond the capacity of the link only wait in a queue."""
        return len(self._latencies) >= 3 and median(self._latencies) > 4 * self._quickest + 0.05

    def _reduce(self, factor: float, now: float) -> None:
        """Reduce the number, at most once per measurement: one event fails many connections."""
        self._growing = False
        if now >= self._reduced_at + SETTLE + MEASURE:
            self.connections = max(1, math.floor(self.connections * factor))
            self._reduced_at = now
            self._grow_at = now + HOLD
            self._before = None
            self._begin()

    def _begin(self) -> None:
        self._pace = 0.5 if self._growing else 1.0
        self._since = self._clock() + SETTLE * self._pace
        self._bytes = 0
        self._latencies.clear()
