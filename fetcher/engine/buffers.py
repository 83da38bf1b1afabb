"""The memory that received bytes live in between the socket and the disk: a fixed number of buffers, made once."""

from __future__ import annotations

import asyncio

from fetcher.host.allocation import pages


class BufferPool:
    """At most `count` buffers of `size` bytes, made when first needed. Used on one event loop.

    The one given back last is handed out first: it is still in a CPU's cache.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._unmade = count
        self._free: list[memoryview] = []
        self._given = asyncio.Event()

    async def borrow(self) -> memoryview:
        """A whole buffer, when there is one. What is in it is somebody else's leftovers."""
        while not self._free and not self._unmade:
            self._given.clear()
            await self._given.wait()
        if self._free:
            return self._free.pop()
        self._unmade -= 1
        return pages(self.size)

    def give_back(self, buffer: memoryview) -> None:
        """`buffer`, as `take` returned it, is no longer used by anyone."""
        self._free.append(buffer)
        self._given.set()
