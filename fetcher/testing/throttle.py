"""A bandwidth limit: computes the delay before the next bytes. The caller waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Throttle:
    """A limit of `rate` bytes a second; None means no limit. Several connections can share one."""

    rate: float | None
    _free_at: float = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Reserve `count` bytes and return the seconds to wait for them."""
        if self.rate is None:
            return 0.0
        self._free_at = max(self._free_at, now) + count / self.rate
        return self._free_at - now
