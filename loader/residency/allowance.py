"""A bound on what may be read again in an hour: a token bucket."""

from __future__ import annotations

from collections.abc import Callable

_HOUR = 3600.0


class Allowance:
    """`hourly` bytes, which are there at the beginning and come back within an hour."""

    def __init__(self, hourly: int, clock: Callable[[], float]) -> None:
        self._hourly = hourly
        self._clock = clock
        self._left = float(hourly)
        self._at = clock()

    def has(self, amount: int) -> bool:
        """Whether so many bytes may be read now."""
        now = self._clock()
        self._left = min(float(self._hourly), self._left + (now - self._at) / _HOUR * self._hourly)
        self._at = now
        return amount <= self._left

    def spend(self, amount: int) -> None:
        """They were read; more than was left is owed."""
        self._left -= amount
