"""Effects on the sending of a response: broken off, stalled, or slowed to a trickle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fetcher.testing.faults import Effect


@dataclass(frozen=True, slots=True)
class Interruption(Effect):
    """An effect after `after` bytes of the body, or before the head if `after` is None."""

    final: ClassVar[bool] = True
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Reset(Interruption):
    """Close the connection with RST."""


@dataclass(frozen=True, slots=True)
class Finish(Interruption):
    """Close the connection with FIN (on TLS after close_notify), as at the end of the body."""


@dataclass(frozen=True, slots=True)
class Stall(Interruption):
    """Send nothing for `seconds`, then the rest; None: until the client closes the connection."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trickle(Interruption):
    """Send the rest in `size` bytes every `interval` seconds. `after` None means 0: the head is always sent."""

    size: int = 1
    interval: float = 0.1
