"""Measures how much of a file is in the page cache.

`glance` is cheap: use it for polling. `measure` is exact: use it as a gate for readiness. Neither claims 1.0 without checking
every page. Where the kernel does not answer a file's reader (a random UID on a read-only mount), they test pages themselves;
where that is impossible, the method is `unknown`. Pages are reclaimed even without memory pressure (DAMON), so measure just
before you report readiness.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Literal

from fetcher.artifact import ByteRange
from fetcher.quantities import ceil_div
from fetcher.values import dataclass
from loader.kernel import (
    PAGE,
    always_in_memory,
    cache_counts,
    counts_waiting,
    mapped,
    mincore_is_reliable,
    read_at_once,
    reopened,
)

Method = Literal["memory", "mincore", "faults", "cachestat", "sampled", "unknown"]
"""From the most to the least certain. `memory`: tmpfs without swap. `mincore`: each page that is up to date. `faults`: each
page, by reading it and counting the waits. `cachestat`: each page, including those still being read. `sampled`: some pages."""

_CERTAINTY: tuple[Method, ...] = ("memory", "mincore", "faults", "cachestat", "sampled", "unknown")
_WINDOW = 1 << 30
_FAULT_WINDOW = 64 << 20
SAMPLES = 1024
_ENOUGH_MISSES = 64  # enough to call a file cold, so that a cold file has few pages disturbed


@dataclass(frozen=True, slots=True)
class Residency:
    """`resident` of `total` bytes are in memory, as found by `method`. `resident` is None if unknown."""

    resident: int | None
    total: int
    method: Method

    @property
    def fraction(self) -> float | None:
        """The resident share: 1.0 only if every page was seen, 1.0 for an empty file, None if unknown."""
        if self.resident is None:
            return None
        return self.resident / self.total if self.total else 1.0

    @property
    def complete(self) -> bool:
        """Whether every byte is known to be in memory."""
        return self.resident == self.total

    @property
    def missing(self) -> int:
        """Bytes still to read: all bytes if unknown."""
        return self.total - (self.resident or 0)


def together(parts: Iterable[Residency]) -> Residency:
    """Add up several files or ranges. The method is the least certain among them."""
    known = list(parts)
    resident = None if any(part.resident is None for part in known) else sum(part.resident or 0 for part in known)
    method = max((part.method for part in known), key=_CERTAINTY.index, default=_CERTAINTY[0])
    return Residency(resident, sum(part.total for part in known), method)


def glance(fd: int, part: ByteRange | None = None) -> Residency:
    """Estimate what is in memory or being read: 0.2 ms a GiB, 20 ms where pages are sampled. For progress, not readiness."""
    pages = _Pages.of(fd, part)
    answer = _by_memory(pages) or _by_cachestat(pages)
    if answer is None and pages.total <= _WINDOW:
        answer = _by_mincore(pages)
    return answer or _by_samples(pages) or Residency(None, pages.total, "unknown")


def measure(fd: int, part: ByteRange | None = None) -> Residency:
    """Measure what is in memory and up to date, page by page.

    Where mincore does not answer, pages are read to see whether they were in memory. This happens only if a sample finds almost
    none missing, because measuring a cold file must not read it. The few missing pages are read by this.
    """
    pages = _Pages.of(fd, part)
    if answer := _by_memory(pages) or _by_mincore(pages):
        return answer
    estimate = _by_cachestat(pages) or _by_samples(pages)
    if estimate is None:
        return Residency(None, pages.total, "unknown")
    return (_by_faults(pages) or estimate) if estimate.missing * SAMPLES <= pages.total else estimate


def drop(fd: int, part: ByteRange | None = None) -> Residency:
    """Write back dirty pages, drop the pages, and measure what stayed. Mapped or locked pages stay, and so do pages that `part`
    covers only partly. Raises OSError if writing back fails."""
    pages = _Pages.of(fd, part)
    counts = cache_counts(fd, pages.start, pages.total) if pages.total else None
    if counts is None or counts.unwritten:
        _write_back(fd)
    if pages.total:
        os.posix_fadvise(fd, pages.start, pages.total, os.POSIX_FADV_DONTNEED)
    return measure(fd, part)


def _write_back(fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):
            raise


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of an open file that hold bytes `start` to `stop`."""

    fd: int
    start: int
    stop: int

    @classmethod
    def of(cls, fd: int, part: ByteRange | None) -> _Pages:
        size = os.fstat(fd).st_size
        return cls(fd, min(part.start, size), min(part.stop, size)) if part else cls(fd, 0, size)

    @property
    def total(self) -> int:
        return self.stop - self.start

    @property
    def first(self) -> int:
        return self.start // PAGE

    @property
    def count(self) -> int:
        return ceil_div(self.stop, PAGE) - self.first if self.total else 0

    def windows(self, width: int) -> Iterator[tuple[int, int]]:
        """Offset and length of each mapping. Mapping in parts keeps the memory small for a file of any size."""
        for offset in range(self.first * PAGE, self.stop, width):
            yield offset, min(width, self.stop - offset)

    def amount(self, resident: int, method: Method) -> Residency:
        """Convert resident pages to bytes. A missing page counts as at least one byte, so the result stays below the total."""
        missing = max(self.count - resident, 0)
        return Residency(min(resident * PAGE, self.total - missing), self.total, method)


def _by_memory(pages: _Pages) -> Residency | None:
    return pages.amount(pages.count, "memory") if pages.total == 0 or always_in_memory(pages.fd) else None


def _by_cachestat(pages: _Pages) -> Residency | None:
    counts = cache_counts(pages.fd, pages.start, pages.total)
    return pages.amount(min(counts.cached, pages.count), "cachestat") if counts else None


def _by_mincore(pages: _Pages) -> Residency | None:
    if not mincore_is_reliable(pages.fd):
        return None
    resident = 0
    for offset, length in pages.windows(_WINDOW):
        with mapped(pages.fd, offset, length) as window:
            counted = window.resident_pages() if window else None
            if counted is None:
                return None
            resident += counted
    return pages.amount(resident, "mincore")


def _by_faults(pages: _Pages) -> Residency | None:
    if not counts_waiting(pages.fd):
        return None
    missing = 0
    for offset, length in pages.windows(_FAULT_WINDOW):
        with mapped(pages.fd, offset, length) as window:
            if window is None:
                return None
            missing += window.faults()
    return pages.amount(max(pages.count - missing, 0), "faults")


_PageTest = Callable[[int], bool | None]


def _by_samples(pages: _Pages) -> Residency | None:
    """One page out of each of `SAMPLES` equal stretches, another one each time: asking brings a page in."""
    with ExitStack() as stack:
        ask = _page_test(pages, stack)
        tested = hits = 0
        for page in _chosen(pages):
            resident = ask(page)
            if resident is None:
                return None
            tested, hits = tested + 1, hits + resident
            if tested - hits == _ENOUGH_MISSES:
                break
    if hits == tested < pages.count:
        return Residency(pages.total * tested // (tested + 1), pages.total, "sampled")
    return pages.amount(pages.count * hits // tested, "sampled")


def _chosen(pages: _Pages) -> list[int]:
    strata = min(SAMPLES, pages.count)
    bounds = [pages.first + pages.count * number // strata for number in range(strata + 1)]
    chosen = [random.randrange(start, stop) for start, stop in pairwise(bounds)]  # noqa: S311
    random.shuffle(chosen)
    return chosen


def _page_test(pages: _Pages, stack: ExitStack) -> _PageTest:
    """The least intrusive test that works for this file: without reading, without waiting, or by waiting."""
    fd = pages.fd
    if mincore_is_reliable(fd):
        return lambda page: _in_core(fd, page)
    own = stack.enter_context(reopened(fd))
    if own is not None and read_at_once(own, pages.stop) is not None:
        return lambda page: read_at_once(own, page * PAGE)
    return (lambda page: _faultless(fd, page)) if counts_waiting(fd) else (lambda _page: None)


def _in_core(fd: int, page: int) -> bool | None:
    with mapped(fd, page * PAGE, PAGE) as window:
        return None if window is None else window.resident_pages() == 1


def _faultless(fd: int, page: int) -> bool | None:
    with mapped(fd, page * PAGE, PAGE) as window:
        return None if window is None else window.faults(alone=True) == 0
