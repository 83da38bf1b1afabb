"""Memory for reading: regions of huge pages, reused when their last view is gone.

Memory is reference-counted by the views of it, and by views of views (memoryview, numpy and torch keep their base alive). It is
reused after the last view is released, never before. Nothing has to be returned. One small tensor that is kept also keeps the
whole block that it was read in.

Fresh memory costs more than the reading: the kernel clears each page before the read overwrites it (0.4-1 CPU-seconds a GiB
instead of 0.29). So a kept arena makes the next load two to five times faster, and a streamed load needs only the few blocks
of its read-ahead. Populating memory first (MADV_POPULATE_WRITE) was not faster: the read populates it as well.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from fetcher.quantities import ceil_div
from loader.errors import TooLarge
from loader.reading.blocks import HUGE

_FIT = 1.25
"""A region is reused for a request of at least four fifths of its size. Layers repeat, so most requests fit exactly."""


Memory = np.ndarray[tuple[int], np.dtype[np.uint8]]
Allocate = Callable[[int], Memory]
"""Returns as many bytes, which begin on a page. They are freed with their last view. Raises TooLarge."""


@dataclass(slots=True, eq=False)
class _Region:
    """`memory` of the pool. `lent` refers to the array behind all views of it."""

    memory: Memory
    lent: weakref.ref[Memory] | None = None

    @property
    def size(self) -> int:
        return self.memory.size


class Arena:
    """A pool of memory, safe for use from several threads. Views outlive it.

    Before it allocates new memory it frees as much idle memory, so it never exceeds the largest amount in use at one time by
    more than a quarter. `allocate` is for memory that a device can read by itself.
    """

    def __init__(self, allocate: Allocate | None = None) -> None:
        self._allocate = allocate or huge_pages
        self._lock = threading.Lock()
        self._returned: deque[_Region] = deque()  # appended to by finalizers, which must not take a lock
        self._idle: list[_Region] = []
        self._lent: set[_Region] = set()
        _ARENAS.add(self)

    def renew_lock(self) -> None:
        """Make the arena usable in a forked child. A thread of the parent, missing in the child, may have held the lock and
        left the list of idle regions half changed, so both are replaced."""
        self._lock = threading.Lock()
        self._idle = []

    def take(self, size: int) -> memoryview:
        """Return `size` bytes of page-aligned memory with arbitrary content. Raises TooLarge."""
        if size == 0:
            return memoryview(bytearray())
        rounded = ceil_div(size, HUGE) * HUGE
        with self._lock:
            self._collect()
            region = self._fitting(rounded)
            if region is None:
                self._free(rounded)
                region = _Region(self._allocate(rounded))
            return self._lend(region, size)

    @property
    def idle(self) -> int:
        """Bytes without a view, kept for the next `take`."""
        with self._lock:
            self._collect()
            return sum(region.size for region in self._idle)

    @property
    def lent(self) -> int:
        """Bytes with a view."""
        with self._lock:
            self._collect()
            return sum(region.size for region in self._lent)

    def trim(self) -> None:
        """Return idle memory to the system."""
        with self._lock:
            self._collect()
            self._idle.clear()

    def _collect(self) -> None:
        while self._returned:
            region = self._returned.popleft()
            self._lent.discard(region)
            self._idle.append(region)

    def _fitting(self, rounded: int) -> _Region | None:
        fitting = [region for region in self._idle if rounded <= region.size <= rounded * _FIT]
        if not fitting:
            return None
        best = min(fitting, key=lambda region: region.size)
        self._idle.remove(best)
        return best

    def _free(self, amount: int) -> None:
        """Free idle regions, the longest idle first, until `amount` bytes are freed."""
        while self._idle and amount > 0:
            amount -= self._idle.pop(0).size

    def _lend(self, region: _Region, size: int) -> memoryview:
        # Every view of these bytes refers to this array, so its death is the release of the last view. The memory can't tell.
        # Not a slice: numpy would make views of it views of the memory itself.
        lender = np.frombuffer(region.memory.data, dtype=np.uint8, count=size)
        returned = self._returned
        region.lent = weakref.ref(lender, lambda _: returned.append(region))
        self._lent.add(region)
        return lender.data


_ARENAS: weakref.WeakSet[Arena] = weakref.WeakSet()


def _renew_locks() -> None:
    for arena in _ARENAS:
        arena.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


def huge_pages(size: int) -> Memory:
    """Return memory that begins on a huge page, and consists of huge pages if the kernel has them. Raises TooLarge.

    Private, because MADV_HUGEPAGE has no effect on shared memory (Python's default). Aligned to a huge page by us, because
    kernels before 6.7 do not align it. Untouched address space costs nothing."""
    try:
        pages = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise TooLarge(f"cannot map {size} bytes of memory for reading: {error}; use a smaller window") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint8, count=size, offset=-address_of(pages) % HUGE)


def address_of(mapping: mmap.mmap) -> int:
    """Return the address of the mapping. numpy is used because ctypes refuses read-only mappings."""
    address: int = np.frombuffer(mapping, dtype=np.uint8).__array_interface__["data"][0]
    return address
