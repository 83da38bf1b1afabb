"""Advances the hash frontiers of all files on a few threads, up to 16 files together.

A vector unit hashes 16 files in little more time than one, so a thread waits until several files have bytes to hash. While
bytes still arrive, receiving needs the processors: one thread hashes all jobs, once most of the begun files are ready or too
many bytes wait. Afterwards all threads share the rest. With SHA extensions one file alone is hashed as fast, and nothing waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from fetcher.host.allocation import map_memory
from fetcher.integrity.frontier import Stretch, advance_together
from fetcher.integrity.lanes import MOST, available
from fetcher.planning.memory import HASH_BUFFER
from fetcher.quantities import ceil_div

LEAST = 4
"""Minimum number of files per thread: two threads with two files each take longer than one thread with four."""
READY = 0.75
"""Fraction of the begun files: waiting for the last few, which may hang, costs more than it gains."""


class Job(Protocol):
    """A file with bytes to hash."""

    @property
    def stretch(self) -> Stretch: ...


J = TypeVar("J", bound=Job)


class Hashing(Generic[J]):
    """Shares jobs between `threads` threads of the caller, which run `work` until `close`. They call `done` with each finished
    job. `together`: files that a thread hashes at a time. `gather`: bytes that wait at most for more files."""

    def __init__(self, *, threads: int, gather: int, together: int = MOST, done: Callable[[J], None]) -> None:
        self._threads = threads
        self._gather = gather
        self._together = together
        self._done = done
        self._ready: deque[J] = deque()
        self._changed = threading.Condition()
        self._claimed = 0
        self._begun = 0
        self._receiving = True
        self._closed = False

    def add(self, job: J) -> None:
        """Add a job. Nobody else may use the frontier of the job until `done` is called."""
        with self._changed:
            self._ready.append(job)
            self._changed.notify()

    def expect(self, files: int, *, receiving: bool) -> None:
        """Set the number of begun, unhashed `files`, and whether more bytes will arrive."""
        with self._changed:
            self._begun = files
            self._receiving = receiving
            if self._ready:  # otherwise threads would wake for nothing, with each small file
                self._changed.notify_all()

    def close(self) -> None:
        """Make threads return after their current step. Nothing stays mapped."""
        with self._changed:
            self._closed = True
            _close(self._ready)
            self._changed.notify_all()

    def work(self) -> None:
        """Hash until `close`. Blocks. Raises OSError, EOFError; see `advance_together`."""
        buffer = map_memory(HASH_BUFFER)
        while jobs := self._claim():
            try:
                advance_together([job.stretch for job in jobs], buffer)
            except BaseException:
                _close(jobs)
                raise
            self._put_back(jobs)

    def _claim(self) -> list[J]:
        with self._changed:
            while not self._closed and not self._worth_it():
                self._changed.wait()
            if self._closed:
                return []
            claimed = [self._ready.popleft() for _ in range(min(len(self._ready), self._share()))]
            self._claimed += len(claimed)
            return claimed

    def _share(self) -> int:
        if self._receiving:
            return self._together
        return min(self._together, max(LEAST, ceil_div(len(self._ready) + self._claimed, self._threads)))

    def _put_back(self, jobs: Sequence[J]) -> None:
        # Before the unfinished jobs are put back: another thread may finish them immediately.
        finished = [job for job in jobs if not job.stretch.left]
        with self._changed:
            self._claimed -= len(jobs)
            # In front: a begun job is mapped and holds a descriptor. So only as many are begun as threads work on.
            self._ready.extendleft(reversed([job for job in jobs if job.stretch.left]))
            if self._closed:
                _close(self._ready)
            if self._ready:
                self._changed.notify()
        for job in finished:
            job.stretch.close()
            self._done(job)

    def _worth_it(self) -> bool:
        if not self._ready or not self._receiving:
            return bool(self._ready)
        return len(self._ready) >= READY * min(self._together, self._begun) or self._waiting_bytes() >= self._gather

    def _waiting_bytes(self) -> int:
        return sum(job.stretch.left for job in self._ready)


def _close(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.stretch.close()


def hash_threads(processors: int) -> int:
    """Return the useful number of threads: two hyperthreads share a vector unit, and receiving needs processors too."""
    return max(1, processors // 2) if available() else processors
