"""Ranges of files, read by several threads and handed out in order, a bounded amount ahead of whoever takes them.

::

    with read(jobs, window=512 * MiB) as reading:
        for job, view in reading:
            ...

Python is no obstacle: preadv releases the GIL, of which a block of 32 MiB takes 0.2 ms.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from loader.kernel import PAGE
from loader.reading.arena import Arena
from loader.reading.blocks import HUGE, Block, Job, blocks
from loader.reading.readahead import ReadAhead
from loader.reading.strategy import Strategy

WINDOW = 512 * 1024 * 1024
"""Bytes read ahead: several of any tensor but the embeddings, which come alone."""

THREADS = 4
"""Past the page cache one thread brought 1.43 GiB/s, two 1.52, four 1.54, eight 1.49; from it, each processor helps."""

_LARGEST_BLOCK = 32 * 1024 * 1024
"""What small tensors are read together in, and what the smallest of them keeps alive."""

_FIRST_BLOCK = HUGE
_BLOCKS_IN_A_WINDOW = 8
_BOTH_ENDS = 2 * PAGE

_FORKED = (
    "this reading belongs to the process that began it: its threads do not exist in a child that was forked; "
    "begin another reading in the child"
)


def read(
    jobs: Iterable[Job],
    *,
    window: int | None = WINDOW,
    threads: int = THREADS,
    mode: Strategy = "buffered",
    arena: Arena | None = None,
) -> Reading:
    """To be used in a `with`, and there as an iterator of (job, view), in the order of the jobs.

    `window` bounds the memory that is filled before somebody asks for it: at most so many bytes, or the one job that is
    larger. What was handed out is not counted: it is up to whoever keeps it. None: no bound.

    Without `threads` nothing is read ahead: each block when its first view is asked for. `threads` and `mode` are best chosen
    by `loader.workers.default_threads` and `loader.filesystems.choose_strategy`. An `arena` that is kept has memory from an
    earlier reading.
    """
    return Reading(jobs, window=window, threads=threads, mode=mode, arena=Arena() if arena is None else arena)


def read_all(
    jobs: Iterable[Job], *, threads: int = THREADS, mode: Strategy = "buffered", arena: Arena | None = None
) -> list[memoryview]:
    """Every job's bytes, in memory together. The caller has compared them with what memory is left."""
    with read(jobs, window=None, threads=threads, mode=mode, arena=arena) as reading:
        return [view for _, view in reading]


class Reading:
    """Made by `read`. Its threads and descriptors live as long as its `with`; views may be kept (see `loader.reading.arena`).

    The first error ends it, and is raised with the next block: what lies before the bad place would be loaded in vain.
    """

    def __init__(self, jobs: Iterable[Job], *, window: int | None, threads: int, mode: Strategy, arena: Arena) -> None:
        largest = _LARGEST_BLOCK if window is None else max(HUGE, min(_LARGEST_BLOCK, window // _BLOCKS_IN_A_WINDOW))
        self._blocks = list(blocks(jobs, largest - _BOTH_ENDS, first=_FIRST_BLOCK - _BOTH_ENDS))
        self._ahead = ReadAhead(self._blocks, window=window, mode=mode, arena=arena)
        self._threads = threads
        self._delivery = self._deliver()
        self._ended = False
        self._process = os.getpid()

    def __enter__(self) -> Self:
        try:
            self._ahead.start(self._threads)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[Job, memoryview]]:
        return self

    def __next__(self) -> tuple[Job, memoryview]:
        # A generator that was closed or has raised just stops, which would pass for having delivered everything.
        if self._ended:
            raise RuntimeError("the reading was closed, or has failed before")
        if os.getpid() != self._process:
            raise RuntimeError(_FORKED)
        try:
            return next(self._delivery)
        except StopIteration:
            raise
        except BaseException:
            self._ended = True
            raise

    @property
    def ahead(self) -> int:
        """Bytes of memory that are read or being read and were not handed out."""
        return self._ahead.ahead

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """Files that are read in another way than was asked for, and why."""
        return self._ahead.fallbacks

    def close(self) -> None:
        """From any thread: stop after the pieces that are being read. Whoever waits for the next block gets RuntimeError.

        In a child that was forked it does nothing, and the parent's reading goes on: a lock may be held by a thread that does
        not exist here, and a descriptor may be half closed, its number another file's."""
        self._ended = True
        if os.getpid() != self._process:
            return
        self._ahead.close()
        with suppress(ValueError):  # somebody is waiting in it just now
            self._delivery.close()

    def _deliver(self) -> Generator[tuple[Job, memoryview]]:
        for number, block in enumerate(self._blocks):
            memory = self._ahead.take(number)
            *others, last = block.jobs
            for job in others:
                yield job, _view(memory, block, job)
            views = [_view(memory, block, last)]
            del memory
            self._ahead.taken(block)
            yield last, views.pop()  # nothing of it stays here: it is idle as soon as the taker lets go of it


def _view(memory: memoryview, block: Block, job: Job) -> memoryview:
    first = job.offset - block.origin
    return memory[first : first + job.length]
