"""A bandwidth limit: decides how long to wait before the next bytes may go, and leaves the waiting to its caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Throttle:
    """`rate` in bytes a second; None means no limit. Several connections may share one."""

    rate: float | None
    _free_at: float = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Seconds until `count` more bytes may have been sent."""
        if self.rate is None:
            return 0.0
        self._free_at = max(self._free_at, now) + count / self.rate
        return self._free_at - now
