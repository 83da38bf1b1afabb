"""Groups adjacent jobs of one file into blocks. Several threads read a block in pieces.

A checkpoint has thousands of small tensors between its large ones: a system call for each would cost more than reading the
bytes. Does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from fetcher.quantities import ceil_div
from loader.kernel import PAGE

if TYPE_CHECKING:
    from loader.reading.access import Access

HUGE = 2 * 1024 * 1024
PIECE = 8 * 1024 * 1024
"""Bytes that a thread reads at a time. Between 4 and 16 MiB the difference is noise. 1 MiB was 10 % slower past the page cache,
and larger pieces take longer to stop."""

_READ_THROUGH = 64 * 1024
"""The largest gap between two jobs, in bytes, for which one read is cheaper than two: a disk reads it in 60 µs."""


class Source(Protocol):
    """A file to read, identified when its header was read. `loader.checkpoint.index.Shard` is one."""

    @property
    def path(self) -> str:
        """The path of the file, for messages."""

    def open(self) -> int:
        """Return a descriptor; the reader closes it. Raises FileReplaced if another file is at the path now."""

    def check(self, descriptor: int) -> None:
        """Raise FileReplaced if the open file was written to since its header was read."""


@runtime_checkable
class Remote(Protocol):
    """A file that is not on this machine, and brings its own way to read it."""

    @property
    def path(self) -> str:
        """The address of the file, for messages."""

    def access(self) -> Access:
        """Return the way to read it, which the reader closes."""


class Job(NamedTuple):
    """Bytes `offset` to `offset + length` of a file. A named tuple, because there may be 100,000 of them."""

    source: Source | Remote
    offset: int
    length: int

    @property
    def stop(self) -> int:
        return self.offset + self.length


@dataclass(slots=True)
class Block:
    """Bytes `start` to `stop` of one file, and the jobs in them, in the given order."""

    source: Source | Remote
    start: int
    stop: int
    jobs: list[Job] = field(default_factory=list)

    @property
    def origin(self) -> int:
        """The start of the page that contains `start`. The block's memory begins there, so an address and its file offset are
        equal modulo a page: O_DIRECT needs that, and mappings have it anyway."""
        return self.start // PAGE * PAGE

    @property
    def span(self) -> int:
        """Bytes of memory needed, in whole pages, because reads past the page cache start and end on a page."""
        return ceil_div(self.stop, PAGE) * PAGE - self.origin if self.stop > self.start else 0

    @property
    def footprint(self) -> int:
        """Bytes of memory allocated, in whole huge pages."""
        return ceil_div(self.span, HUGE) * HUGE

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield start and stop of each piece. Pieces end at multiples of `PIECE` in the file."""
        start = self.start
        while start < self.stop:
            stop = min((start // PIECE + 1) * PIECE, self.stop)
            yield start, stop
            start = stop


def blocks(jobs: Iterable[Job], size: int, *, first: int) -> Iterator[Block]:
    """Group jobs into blocks of up to `size` bytes, in order. A larger job is a block by itself.

    The first block has up to `first` bytes, each later one up to twice as many: somebody waits for the first tensor.
    """
    block: Block | None = None
    limit = min(first, size)
    for job in jobs:
        if block is None or not _joins(block, job, limit):
            if block is not None:
                yield block
                limit = min(2 * limit, size)
            block = Block(job.source, job.offset, job.stop)
        elif job.length:
            block.start = block.start if block.stop > block.start else job.offset
            block.stop = job.stop
        block.jobs.append(job)
    if block is not None:
        yield block


def _joins(block: Block, job: Job, size: int) -> bool:
    if job.source is not block.source:
        return False
    if job.length == 0 or block.start == block.stop:
        return True
    return 0 <= job.offset - block.stop <= _READ_THROUGH and job.stop - block.start <= size
