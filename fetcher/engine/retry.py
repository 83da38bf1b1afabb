"""The one place that decides whether and when to retry. Sources classify their errors; this module acts on the class.

Delays grow from try to try with full jitter, so that 32 nodes that failed together do not retry together. A delay is never
shorter than the server asked for. Retries end after a time without progress, not after a number of tries: a server that is down
for two minutes costs two minutes. A server that breaks HTTP the same way each time is not down, and waiting does not help:
`Violations` ends those retries within seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import TypeVar

from fetcher.errors import BadResponse, Transient
from fetcher.events import Retrying, Subscriber
from fetcher.quantities import doubled
from fetcher.values import dataclass

T = TypeVar("T")

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds. A retry after a dropped connection often works immediately; a service that restarts needs half a minute."""

VIOLATIONS, VIOLATED_FOR = 5, 5.0
"""Answers, and seconds from the first to the last of them. A proxy that restarts sends nonsense for a moment, to several
connections. A server that breaks the protocol for longer has a bug or a wrong configuration."""
CHECK_THE_WAY = "check HF_ENDPOINT and the proxy, or use another mirror: one of them breaks HTTP"


@dataclass(slots=True)
class Patience:
    """Allows retries for `retry_for` seconds without progress."""

    retry_for: float
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def progressed(self) -> None:
        """Record progress: the time starts again."""
        self._since = self.clock()

    def delay(self, error: Transient, attempt: int) -> float:
        """Return the seconds to wait before try `attempt + 1` (the first try is 1). Raises `error` when the time is over."""
        seconds_left = self._since + self.retry_for - self.clock()
        wanted = error.retry_after or 0.0
        if seconds_left <= 0:
            raise gave_up(error, f"gave up after {self.retry_for:.0f} s without progress (--retry-for)")
        if wanted > seconds_left:
            raise gave_up(error, f"the server asks to wait {wanted:.0f} s, longer than --retry-for allows")
        backoff = doubled(FIRST_DELAY, attempt, LONGEST_DELAY)
        # Full jitter on top of what the server asked for. The last try is just before the end.
        return min(wanted + self.uniform(0.0, backoff), max(seconds_left, 0.01))


@dataclass(slots=True)
class Violations:
    """Counts consecutive answers that broke the protocol, for one request or for all requests of one file."""

    clock: Callable[[], float] = time.monotonic
    _count: int = 0
    _since: float = 0.0

    def answered(self) -> None:
        """Record a valid answer, or received bytes."""
        self._count = 0

    def failed(self, error: Transient) -> None:
        """Record an error. Raises it after too many violations. Any other error resets the count."""
        if not isinstance(error, BadResponse):
            self._count = 0
            return
        if self._count == 0:
            self._since = self.clock()
        self._count += 1
        if self._count >= VIOLATIONS and self.clock() - self._since >= VIOLATED_FOR:
            raise gave_up(error, f"{self._count} answers in a row broke the protocol")


def gave_up(error: Transient, why: str) -> Transient:
    """Return `error` with the reason why there is no further retry, and advice if waiting does not help."""
    advice = f"; {CHECK_THE_WAY}" if isinstance(error, BadResponse) else ""
    return type(error)(f"{error.message}; {why}{advice}", path=error.path, retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class Asker:
    """The `sources.base.Asking` of one fetch: retries each request of a sequence separately. Each success is progress."""

    patience: Patience
    on_event: Subscriber
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `request`. Retries while its error is transient and `patience` allows. Raises the last error."""
        attempt, violations = 0, Violations(self.patience.clock)
        while True:
            attempt += 1
            try:
                result = await request()
            except Transient as error:
                violations.failed(error)
                delay = self.patience.delay(error, attempt)
                self.on_event(Retrying(error.reason, error.message, error.path, attempt, delay))
                await self.sleep(delay)
            else:
                self.patience.progressed()
                return result
