"""How many connections are worth having, found by trying while the transfer runs. Pure: time comes from a clock passed in.

::

    growing    twice as many; kept while each step brings more bytes a second, else back to the step before
    holding    for a while, then once more half as many again: a link's rate changes, others come and go
    refused    429, or 503 with Retry-After: a third fewer at once, and no more than that until some time has passed
    failing    connections that break, or answers that take ever longer without bringing more: a quarter fewer

A link that one connection fills is left with few; one that caps each connection gets as many as it takes. In simulation this
reaches 95 % of what a link carries for half a minute's worth of data and more (`tests/engine/test_concurrency.py`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

START = 8
"""Connections. One to four fill a fast local link, 16 and more a long one; eight are two steps from both."""
FEW = 4
"""Connections that are not too many for any link: answers that come late then are somebody else's doing, or this machine's."""
SETTLE, MEASURE = 0.5, 1.0
"""Seconds after a change before it is measured, and for how long: connections open, and congestion windows, in the first.
Half of both while growing, where a step doubles and the noise counts less."""
GAIN = 1.06
"""A step up is kept for 6 % more: round trips between ranges alone cost more than that on a long link with too few."""
HOLD = 15.0
"""Seconds from one attempt at a higher level to the next."""
WORK = 2.0
"""Seconds a range should take at least, and forty round trips: a fortieth of the time is spent on waiting for answers."""
CAUTION = 60.0
"""Seconds for which a server that refused is not asked for more than it was left with. The Hub's windows are minutes."""


class Concurrency:
    """`connections` is how many may be active now, at most `most`. Tell it what happens; ask it whenever one is free."""

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
        """Bytes have come."""
        now = self._clock()
        if now >= self._since:
            self._bytes += count
        if now >= self._since + MEASURE * self._pace:
            self._measured(self._bytes / (now - self._since), now)

    def answered(self, seconds: float) -> None:
        """A request's answer began so long after it was sent."""
        self._quickest = min(self._quickest, seconds)
        self._latencies.append(seconds)

    def refused(self) -> None:
        """The server asked for fewer requests (429, or 503 with Retry-After)."""
        now = self._clock()
        self._cautious_until = now + CAUTION
        self._reduce(2 / 3, now)
        self._ceiling = self.connections

    def failed(self) -> None:
        """A connection broke, stalled or was not made."""
        self._reduce(3 / 4, self._clock())

    def range_length(self, missing: int, *, shortest: int, longest: int) -> int:
        """Bytes worth a request now that `missing` are still to be asked for; towards the end half of a connection's share."""
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
                # After doubling an eighth more than the level before: some are always between two ranges.
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
        """More in flight than the link carries waits in somebody's queue: answers take longer and nothing is won."""
        return len(self._latencies) >= 3 and statistics.median(self._latencies) > 4 * self._quickest + 0.05

    def _reduce(self, factor: float, now: float) -> None:
        """At most once in a measurement: many connections learn of one event."""
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
