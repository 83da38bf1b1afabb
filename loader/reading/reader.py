"""Reads ranges of files with several threads and delivers them in order, a bounded amount ahead of the consumer.

::

    with read(jobs, window=512 * MiB) as reading:
        for job, view in reading:
            ...

Python does not slow this down: preadv releases the GIL, and a block of 32 MiB holds it for 0.2 ms.
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
from loader.reading.strategy import Mode

WINDOW = 512 * 1024 * 1024
"""Bytes read ahead: several of the largest tensors, except embeddings, which are read alone."""

THREADS = 4
"""Past the page cache one thread read 1.43 GiB/s, two 1.52, four 1.54, eight 1.49. From it, each processor helps."""

_LARGEST_BLOCK = 32 * 1024 * 1024
"""Small tensors are read together up to this size, which is also the memory that one kept tensor keeps."""

_FIRST_BLOCK = HUGE
_BLOCKS_IN_A_WINDOW = 8
_BOTH_ENDS = 2 * PAGE

_FORKED = (
    "this reading belongs to the process that started it: its threads do not exist in a forked child; "
    "start another reading in the child"
)


def read(
    jobs: Iterable[Job],
    *,
    window: int | None = WINDOW,
    threads: int = THREADS,
    mode: Mode = "buffered",
    arena: Arena | None = None,
) -> Reading:
    """Return a reading for a `with` block. It iterates over (job, view), in the order of the jobs.

    `window` limits the memory read ahead, in bytes; one job may be larger (None: no limit). Views that were delivered do not
    count.

    `threads=0` reads nothing ahead: each block is read when its first view is requested. Choose `threads` and `mode` with
    `loader.workers.default_threads` and `loader.reading.strategy.choose_strategy`. An `arena` that is kept reuses the memory of
    earlier readings.
    """
    return Reading(jobs, window=window, threads=threads, mode=mode, arena=Arena() if arena is None else arena)


def read_all(
    jobs: Iterable[Job], *, threads: int = THREADS, mode: Mode = "buffered", arena: Arena | None = None
) -> list[memoryview]:
    """Return the bytes of all jobs. The caller checks first that they fit in memory."""
    with read(jobs, window=None, threads=threads, mode=mode, arena=arena) as reading:
        return [view for _, view in reading]


class Reading:
    """Made by `read`. Its threads and descriptors live as long as its `with`; views can be kept (see `loader.reading.arena`).

    The first error ends it and is raised with the next block, even if earlier blocks are ready: a partial load is useless.
    """

    def __init__(self, jobs: Iterable[Job], *, window: int | None, threads: int, mode: Mode, arena: Arena) -> None:
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
        # A closed or failed generator just stops, which would look like a complete delivery.
        if self._ended:
            raise RuntimeError("the reading was closed or has failed")
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
        """Bytes of memory read or being read that were not delivered yet."""
        return self._ahead.ahead

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """The files that are not read in the requested mode, with the reason."""
        return self._ahead.fallbacks

    def close(self) -> None:
        """Stop after the pieces that are being read. Can be called from any thread; a thread that waits for the next block gets
        RuntimeError.

        In a forked child this does nothing, and the parent's reading continues. A missing thread may hold a lock there, and a
        descriptor's number may already belong to another file."""
        self._ended = True
        if os.getpid() != self._process:
            return
        self._ahead.close()
        with suppress(ValueError):  # another thread is waiting in it
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
            yield last, views.pop()  # no reference is kept, so the memory is idle when the consumer releases its view


def _view(memory: memoryview, block: Block, job: Job) -> memoryview:
    first = job.offset - block.origin
    return memory[first : first + job.length]
