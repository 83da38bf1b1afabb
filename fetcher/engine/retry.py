"""The one place that decides whether and when to try again. Sources classify; this obeys the class.

Delays grow from try to try with full jitter (so that 32 nodes that failed together do not return together), never below what
the server asked for. What ends it is not a number of tries but time without any progress: a server that is down for two
minutes at noon costs two minutes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fetcher.errors import Transient
from fetcher.events import Retrying, Subscriber

T = TypeVar("T")

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds. A dropped connection is worth a try at once; a service that restarts needs half a minute."""


@dataclass(slots=True)
class Patience:
    """How long to go on without progress: `retry_for` seconds since `progressed` was last called."""

    retry_for: float
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def progressed(self) -> None:
        self._since = self.clock()

    def delay(self, error: Transient, attempt: int) -> float:
        """Seconds to wait before try `attempt + 1` (the first try is 1). Raises `error` when patience is at its end."""
        left = self._since + self.retry_for - self.clock()
        wanted = error.retry_after or 0.0
        if left <= 0:
            raise gave_up(error, f"gave up after {self.retry_for:.0f} s without progress (--retry-for)")
        if wanted > left:
            raise gave_up(error, f"the server asks to wait {wanted:.0f} s, longer than --retry-for allows")
        backoff = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempt - 1, 16))
        # Full jitter on top of what was asked for; the last try is made just before the end, not after it.
        return min(wanted + self.uniform(0.0, backoff), max(left, 0.01))


def gave_up(error: Transient, why: str) -> Transient:
    """`error`, which also says why there is no further try."""
    return type(error)(f"{error.message}; {why}", path=error.path, retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class Asker:
    """The `sources.base.Asking` of one fetch: each request of a sequence is tried again by itself, and each success is
    progress."""

    patience: Patience
    on_event: Subscriber

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """The result of `request`, tried again while its error is transient and patience lasts."""
        attempt = 0
        while True:
            attempt += 1
            try:
                result = await request()
            except Transient as error:
                delay = self.patience.delay(error, attempt)
                self.on_event(Retrying(error.reason, error.message, error.path, attempt, delay))
                await asyncio.sleep(delay)
            else:
                self.patience.progressed()
                return result
