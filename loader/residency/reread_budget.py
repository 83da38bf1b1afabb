"""A limit on the bytes that are read again within an hour: a token bucket."""

from __future__ import annotations

from collections.abc import Callable

_HOUR = 3600.0


class RereadBudget:
    """A bucket of `hourly` bytes. It starts full and refills within an hour."""

    def __init__(self, hourly: int, clock: Callable[[], float]) -> None:
        self._hourly = hourly
        self._clock = clock
        self._balance = float(hourly)
        self._updated = clock()

    def has(self, amount: int) -> bool:
        """Return whether `amount` bytes can be read now."""
        now = self._clock()
        self._balance = min(float(self._hourly), self._balance + (now - self._updated) / _HOUR * self._hourly)
        self._updated = now
        return amount <= self._balance

    def spend(self, amount: int) -> None:
        """Record that `amount` bytes were read. The balance may become negative."""
        self._balance -= amount
