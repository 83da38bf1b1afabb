"""The one place that decides whether and when to try again. Sources classify; this obeys the class.

Delays grow from try to try with full jitter (so that 32 nodes that failed together do not return together), never below what
the server asked for. What ends it is not a number of tries but time without any progress: a server that is down for two
minutes at noon costs two minutes. A server that breaks HTTP the same way each time is not down, and waiting does not change it:
`Violations` ends that within seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fetcher.errors import BadResponse, Transient
from fetcher.events import Retrying, Subscriber

T = TypeVar("T")

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds. A dropped connection is worth a try at once; a service that restarts needs half a minute."""

VIOLATIONS, VIOLATED_FOR = 5, 5.0
"""Answers, and seconds from the first to the last of them. A proxy that restarts sends nonsense for a moment, and several
connections meet that moment at once; whoever breaks the protocol for longer was written or configured so."""
CHECK_THE_WAY = "check HF_ENDPOINT and the proxy, or use another mirror: one of them breaks HTTP"


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


@dataclass(slots=True)
class Violations:
    """Answers in a row that broke the protocol: of one request, or of all requests for one file."""

    clock: Callable[[], float] = time.monotonic
    _count: int = 0
    _since: float = 0.0

    def answered(self) -> None:
        """An answer was right, or brought something."""
        self._count = 0

    def failed(self, error: Transient) -> None:
        """Raises `error` when it is one violation too many. Any other error ends the row: it tells of another state."""
        if not isinstance(error, BadResponse):
            self._count = 0
            return
        if self._count == 0:
            self._since = self.clock()
        self._count += 1
        if self._count >= VIOLATIONS and self.clock() - self._since >= VIOLATED_FOR:
            raise gave_up(error, f"{self._count} answers in a row were wrong")


def gave_up(error: Transient, why: str) -> Transient:
    """`error`, which also says why there is no further try, and what to do where waiting would not help."""
    advice = f"; {CHECK_THE_WAY}" if isinstance(error, BadResponse) else ""
    return type(error)(f"{error.message}; {why}{advice}", path=error.path, retry_after=error.retry_after)


@dataclass(frozen=True, slots=True)
class Asker:
    """The `sources.base.Asking` of one fetch: each request of a sequence is tried again by itself, and each success is
    progress."""

    patience: Patience
    on_event: Subscriber

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """The result of `request`, tried again while its error is transient and patience lasts."""
        attempt, violations = 0, Violations(self.patience.clock)
        while True:
            attempt += 1
            try:
                result = await request()
            except Transient as error:
                violations.failed(error)
                delay = self.patience.delay(error, attempt)
                self.on_event(Retrying(error.reason, error.message, error.path, attempt, delay))
                await asyncio.sleep(delay)
            else:
                self.patience.progressed()
                return result
