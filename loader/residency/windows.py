"""Plans which part of which file is read next, by which rank, and how much fits in memory. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fetcher.artifact import ByteRange
from fetcher.values import dataclass
from loader.kernel import PAGE

WIDEST = 64 * 1024 * 1024
"""Bytes. One read-ahead request for 1 GiB reads 8 MiB of it; MADV_POPULATE_READ in windows of this size was as fast
as the disk, and with four threads a quarter of a GiB is in flight."""

_NARROWEST = 1024 * 1024
_WINDOWS_EACH = 4
"""The least number of windows for each rank. With several, the ranks' parts are about equal even if the files are small."""

_ALLOWANCE = 64
"""Overhead of pages, as one byte in this many: the page-cache tree (0.2 %) and per-processor counters."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the planned file `number` (from 0). It begins on a page."""

    number: int
    part: ByteRange

    @property
    def size(self) -> int:
        return len(self.part)


def windows(sizes: Sequence[int], *, width: int = WIDEST) -> Iterator[Window]:
    """Divide files of these sizes into windows that cover each byte once, in order. Sizes and `width` in bytes."""
    for number, size in enumerate(sizes):
        for start in range(0, size, width):
            yield Window(number, ByteRange(start, min(start + width, size)))


def width_for(total: int, ranks: int) -> int:
    """Return the width of windows in bytes: whole pages, narrow enough that each of `ranks` gets several."""
    fair = total // (ranks * _WINDOWS_EACH) // PAGE * PAGE
    return min(WIDEST, max(_NARROWEST, fair))


def share(plan: Sequence[Window], *, rank: int, ranks: int) -> tuple[Window, ...]:
    """Return the windows of rank `rank` of `ranks`. Each window belongs to one rank, and the ranks' bytes differ by a window at
    most. All ranks advance through the files together, so the first shard is warm first."""
    loads = [0] * ranks
    own = []
    for window in plan:
        lightest = min(range(ranks), key=loads.__getitem__)
        loads[lightest] += window.size
        if lightest == rank:
            own.append(window)
    return tuple(own)


def room_for(size: int) -> int:
    """Return how many bytes of memory are needed to keep `size` bytes of files in it."""
    return size + size // _ALLOWANCE


def fitting(plan: Sequence[Window], left: int) -> tuple[Window, ...]:
    """Return the first windows of the plan that fit in `left` bytes of memory."""
    needed = 0
    for count, window in enumerate(plan):
        needed += window.size
        if room_for(needed) > left:
            return tuple(plan[:count])
    return tuple(plan)


def joined(plan: Sequence[Window]) -> Iterator[Window]:
    """Join adjacent windows of the same file: joined ones are measured in one call."""
    last: Window | None = None
    for window in plan:
        if last is not None and last.number == window.number and last.part.stop == window.part.start:
            last = Window(last.number, ByteRange(last.part.start, window.part.stop))
            continue
        if last is not None:
            yield last
        last = window
    if last is not None:
        yield last
