"""Which part of which file is brought in next, by whom, and how far memory reaches. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fetcher.artifact import ByteRange
from loader.kernel import PAGE

WIDEST = 64 * 1024 * 1024
"""Bytes. One request for read-ahead over 1 GiB brings 8 MiB of it; MADV_POPULATE_READ in windows of this size was as fast
as the disk, and with four threads a quarter of a GiB is in flight."""

_NARROWEST = 1024 * 1024
_WINDOWS_EACH = 4
"""At least so many windows a rank, where the files are small, so that the ranks' parts are about equal."""

_ALLOWANCE = 64
"""One byte in so many for what pages cost besides themselves: the tree that finds them (0.2 %), counts kept per processor."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the file `number` of those that were planned for; it begins on a page."""

    number: int
    part: ByteRange

    @property
    def size(self) -> int:
        return len(self.part)


def windows(sizes: Sequence[int], *, width: int = WIDEST) -> Iterator[Window]:
    """Every byte of the files, once, in order."""
    for number, size in enumerate(sizes):
        for start in range(0, size, width):
            yield Window(number, ByteRange(start, min(start + width, size)))


def width_for(total: int, ranks: int) -> int:
    """How wide windows are: whole pages, narrow enough that each of `ranks` has several of them."""
    fair = total // (ranks * _WINDOWS_EACH) // PAGE * PAGE
    return min(WIDEST, max(_NARROWEST, fair))


def share(plan: Sequence[Window], *, rank: int, ranks: int) -> tuple[Window, ...]:
    """The windows of one of `ranks`. Together the ranks have each window once, and none has more bytes than another by more
    than a window; all advance through the files together, so that the first shard is warm first."""
    loads = [0] * ranks
    mine = []
    for window in plan:
        lightest = min(range(ranks), key=loads.__getitem__)
        loads[lightest] += window.size
        if lightest == rank:
            mine.append(window)
    return tuple(mine)


def room_for(size: int) -> int:
    """How much memory must be left for `size` bytes of files to stay in it."""
    return size + size // _ALLOWANCE


def fitting(plan: Sequence[Window], left: int) -> tuple[Window, ...]:
    """The windows from the beginning on for which `left` bytes of memory are room."""
    taken = 0
    for count, window in enumerate(plan):
        taken += window.size
        if room_for(taken) > left:
            return tuple(plan[:count])
    return tuple(plan)


def joined(plan: Sequence[Window]) -> Iterator[Window]:
    """Neighbours as one: what is measured at a time."""
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
