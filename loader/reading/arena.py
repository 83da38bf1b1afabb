"""Memory that is read into: huge pages, used again as soon as nobody looks at them.

The rule: what `Arena.take` returned belongs to whoever holds a view of it, or a view of a view (memoryview, numpy and torch
keep what they look at alive). When the last of them is gone, and not before, the memory may be given out again. Nobody has to
give anything back; keeping one small tensor keeps the whole block it was read in.

Fresh memory costs more than the reading: the kernel clears each page before the read overwrites it (0.4-1 CPU-seconds a GiB
instead of 0.29). So an arena that is kept makes the next load two to five times faster, and a streamed load runs in the few
blocks that its reader is ahead. Populating it beforehand (MADV_POPULATE_WRITE) brought nothing: the read does it on its way.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from fetcher.quantities import ceil_div
from loader.errors import TooLarge
from loader.reading.blocks import HUGE

_FIT = 1.25
"""A region serves again for what takes at least four fifths of it. Layers repeat, so most fit to the byte."""


@dataclass(slots=True, eq=False)
class _Region:
    """`size` bytes of address space, `first` bytes behind where the mapping begins; `lent` tells when its lender is gone."""

    pages: mmap.mmap
    first: int
    size: int
    lent: weakref.ref[np.ndarray[tuple[int], np.dtype[np.uint8]]] | None = None


class Arena:
    """Safe to use from several threads; views outlive it. Before it maps anything new it unmaps as much of what is idle and
    does not fit, so it grows no larger than what was looked at at one time, and a quarter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[_Region] = deque()  # appended to while objects die, where no lock may be taken
        self._idle: list[_Region] = []
        self._lent: set[_Region] = set()
        _ARENAS.add(self)

    def renew_lock(self) -> None:
        """In a child that was forked: a thread of the parent may have held the lock, and that thread does not exist here.
        What it was at is half done, so what is idle is given back."""
        self._lock = threading.Lock()
        self._idle = []

    def take(self, size: int) -> memoryview:
        """`size` bytes that begin on a page, of any content. Raises TooLarge."""
        if size == 0:
            return memoryview(bytearray())
        wanted = ceil_div(size, HUGE) * HUGE
        with self._lock:
            self._collect()
            region = self._fitting(wanted)
            if region is None:
                self._unmap(wanted)
                region = _mapped(wanted)
            return self._lend(region, size)

    @property
    def idle(self) -> int:
        """Bytes that nobody looks at, kept for the next `take`."""
        with self._lock:
            self._collect()
            return sum(region.size for region in self._idle)

    @property
    def lent(self) -> int:
        """Bytes that somebody looks at."""
        with self._lock:
            self._collect()
            return sum(region.size for region in self._lent)

    def trim(self) -> None:
        """Give what is idle back to the system."""
        with self._lock:
            self._collect()
            self._idle.clear()

    def _collect(self) -> None:
        while self._returned:
            region = self._returned.popleft()
            self._lent.discard(region)
            self._idle.append(region)

    def _fitting(self, wanted: int) -> _Region | None:
        fitting = [region for region in self._idle if wanted <= region.size <= wanted * _FIT]
        if not fitting:
            return None
        best = min(fitting, key=lambda region: region.size)
        self._idle.remove(best)
        return best

    def _unmap(self, amount: int) -> None:
        """The longest idle first, until `amount` is free."""
        while self._idle and amount > 0:
            amount -= self._idle.pop(0).size

    def _lend(self, region: _Region, size: int) -> memoryview:
        # Whoever looks at these bytes does so by way of this array; mmap itself can be asked for its views, but not by whom.
        lender = np.frombuffer(region.pages, dtype=np.uint8, count=size, offset=region.first)
        returned = self._returned
        region.lent = weakref.ref(lender, lambda _: returned.append(region))
        self._lent.add(region)
        return lender.data


_ARENAS: weakref.WeakSet[Arena] = weakref.WeakSet()


def _renew_locks() -> None:
    for arena in _ARENAS:
        arena.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


def _mapped(size: int) -> _Region:
    """Private, for on shared memory (Python's default) MADV_HUGEPAGE does nothing; and it begins on a huge page, which kernels
    before 6.7 do not see to. Address space that is not touched costs nothing."""
    try:
        pages = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise TooLarge(f"cannot have {size} bytes of memory to read into: {error}; read with a smaller window") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return _Region(pages, -address_of(pages) % HUGE, size)


def address_of(mapping: mmap.mmap) -> int:
    """Where it begins. Unlike ctypes, numpy looks at what may not be written to as well."""
    address: int = np.frombuffer(mapping, dtype=np.uint8).__array_interface__["data"][0]
    return address
