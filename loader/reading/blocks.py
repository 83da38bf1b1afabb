"""What is read together: jobs that lie side by side in one file become a block, which is read in pieces by several threads.

A checkpoint has thousands of small tensors between its large ones; a system call for each of them would cost more than their
bytes. Pure: nothing here touches a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fetcher.quantities import ceil_div
from loader.kernel import PAGE

HUGE = 2 * 1024 * 1024
PIECE = 8 * 1024 * 1024
"""Bytes a thread reads at a time. From 4 to 16 MiB the difference is in the noise; 1 MiB brought 10 % less past the page
cache, and longer ones take longer to stop."""

_READ_THROUGH = 64 * 1024
"""Bytes that nobody asked for between two jobs, up to which one read is cheaper than two: what a disk brings in 60 µs."""


class Source(Protocol):
    """A file to be read, as its header was seen: `loader.checkpoint.index.Shard` is one."""

    @property
    def path(self) -> str: ...

    def open(self) -> int:
        """A descriptor, which the reader closes. Raises FileReplaced when another file is there by now."""

    def check(self, descriptor: int) -> None:
        """Raises FileReplaced when what is open was written to since."""


class Job(NamedTuple):
    """Bytes `offset` to `offset + length` of a file. A named tuple, for there may be 100,000."""

    source: Source
    offset: int
    length: int

    @property
    def stop(self) -> int:
        return self.offset + self.length


@dataclass(slots=True)
class Block:
    """Bytes `start` to `stop` of one file, and the jobs they hold, in the order they were given."""

    source: Source
    start: int
    stop: int
    jobs: list[Job] = field(default_factory=list)

    @property
    def origin(self) -> int:
        """The page that `start` lies on: where the block's memory begins, so that an address and its offset in the file agree
        modulo a page. O_DIRECT needs that, and a mapping has it anyway."""
        return self.start // PAGE * PAGE

    @property
    def span(self) -> int:
        """Bytes of memory it needs: whole pages, so that reads past the page cache may begin early and end late."""
        return ceil_div(self.stop, PAGE) * PAGE - self.origin if self.stop > self.start else 0

    @property
    def footprint(self) -> int:
        """Bytes of memory it takes: whole huge pages."""
        return ceil_div(self.span, HUGE) * HUGE

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Start and stop of what is read at a time, cut at multiples of `PIECE` of the file."""
        start = self.start
        while start < self.stop:
            stop = min((start // PIECE + 1) * PIECE, self.stop)
            yield start, stop
            start = stop


def blocks(jobs: Iterable[Job], size: int, *, first: int) -> Iterator[Block]:
    """In the order of the jobs; of up to `size` bytes, except for a job that is larger by itself. The first block has up to
    `first` bytes, each one after it twice as many: somebody waits for the first tensor."""
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
