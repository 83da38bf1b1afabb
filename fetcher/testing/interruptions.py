"""Effects on the way a response is sent: broken off, held up, or slowed to a trickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fetcher.testing.faults import Effect


@dataclass(frozen=True, slots=True)
class Interruption(Effect):
    """Happens after `after` bytes of the body were sent; before the head when it is None."""

    final: ClassVar[bool] = True
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Reset(Interruption):
    """The connection is torn down with RST."""


@dataclass(frozen=True, slots=True)
class Finish(Interruption):
    """The connection is closed with FIN (on TLS after close_notify), as if the body ended there."""


@dataclass(frozen=True, slots=True)
class Stall(Interruption):
    """Nothing more is sent for `seconds`, then the rest; None: until the client goes away."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trickle(Interruption):
    """From there on `size` bytes every `interval` seconds. `after` None counts as 0: the head is always sent."""

    size: int = 1
    interval: float = 0.1
