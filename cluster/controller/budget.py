"""How many bytes of objects may be written now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RATE = 1_000_000.0
"""Bytes of objects in a second that etcd keeps up with beside its other work."""
BURST = 32_000_000.0
"""Bytes that may be written at once after a rest: 200 entries in each of 1,000 new NodeCaches are 10 MB."""


@dataclass(slots=True)
class Budget:
    """Bytes that may be written now. `clock` is monotonic."""

    clock: Callable[[], float]
    rate: float = RATE
    burst: float = BURST
    _left: float = BURST
    _since: float | None = None

    def allows(self) -> bool:
        now = self.clock()
        if self._since is not None:
            self._left = min(self.burst, self._left + (now - self._since) * self.rate)
        self._since = now
        return self._left > 0

    def spend(self, count: int) -> None:
        self._left -= count
