"""A body of a known supplier, whose bytes are reported as they come."""

from __future__ import annotations

from collections.abc import Callable

from fetcher.errors import FetchError
from fetcher.sources.base import Body, DirectBody


class SuppliedBody:
    """`body` of `supplier`. `report` is called with the number of bytes since the last call, and may raise to end it."""

    def __init__(self, body: Body, supplier: str, report: Callable[[int], None]) -> None:
        self._body = body
        self.supplier = supplier
        self._tell = report
        self._count = 0

    @property
    def direct(self) -> DirectBody | None:
        return self if self._body.direct is not None else None

    async def readable(self, room: int) -> bool:
        self._report()
        direct = self._body.direct
        return direct is not None and await direct.readable(room)

    def read(self, buffer: memoryview) -> int:
        direct = self._body.direct
        count = direct.read(buffer) if direct is not None else 0
        self._count += count
        return count

    async def readinto(self, buffer: memoryview) -> int:
        self._report()
        count = await self._body.readinto(buffer)
        self._count += count
        return count

    def _report(self) -> None:
        count, self._count = self._count, 0
        self._tell(count)


def why(error: Exception) -> str:
    """Return what happened, for the line about a mirror."""
    if isinstance(error, FetchError):
        return error.message
    return f"the connection broke: {(getattr(error, 'strerror', None) or type(error).__name__).lower()}"
