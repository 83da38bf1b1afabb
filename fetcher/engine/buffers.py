"""Memory for received bytes between the socket and the disk: a fixed number of reused buffers."""

from __future__ import annotations

import asyncio

from fetcher.host.allocation import map_memory


class BufferPool:
    """At most `count` buffers of `size` bytes, allocated when first needed. Used on one event loop.

    The pool lends the most recently returned buffer first: it is still in a CPU's cache.
    """

    def __init__(self, count: int, size: int) -> None:
        self.size = size
        self._unallocated = count
        self._free: list[memoryview] = []
        self._returned = asyncio.Event()

    async def borrow(self) -> memoryview:
        """Wait for a free buffer and return it. It still contains the bytes of its previous use."""
        while not self._free and not self._unallocated:
            self._returned.clear()
            await self._returned.wait()
        if self._free:
            return self._free.pop()
        self._unallocated -= 1
        return map_memory(self.size)

    def give_back(self, buffer: memoryview) -> None:
        """Return a whole buffer that `borrow` lent. Nobody may use it afterwards."""
        self._free.append(buffer)
        self._returned.set()
