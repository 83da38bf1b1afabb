"""The hash frontiers of all files, moved forward by a few threads, up to 16 files at once.

A vector unit hashes 16 files in hardly more time than one, so it pays to wait until several have something to hash. While bytes
still come in, the processors are needed for them: one thread takes all there is, once most of the files at hand are ready or
too much has gathered. Afterwards all threads share what is left.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from fetcher.host.allocation import pages
from fetcher.integrity.frontier import Stretch, advance_together
from fetcher.integrity.lanes import MOST, available
from fetcher.planning.memory import HASH_BUFFER
from fetcher.quantities import ceil_div

LEAST = 4
"""Files that are not shared out further: two threads with two files each take longer than one with four."""
READY = 0.75
"""Of the files at hand: waiting for the last few, which may hang, gains less than it costs."""


class Job(Protocol):
    """One file with something to hash."""

    @property
    def stretch(self) -> Stretch: ...


J = TypeVar("J", bound=Job)


class Hashing(Generic[J]):
    """`threads` of the caller's run `work` until `close`. `done` is called, by them, with each job that came to its limit."""

    def __init__(self, *, threads: int, gather: int, done: Callable[[J], None]) -> None:
        self._threads = threads
        self._gather = gather
        self._done = done
        self._ready: deque[J] = deque()
        self._changed = threading.Condition()
        self._claimed = 0
        self._at_hand = 0
        self._receiving = True
        self._closed = False

    def add(self, job: J) -> None:
        """There is something to hash; until `done`, nobody else may touch the job's frontier."""
        with self._changed:
            self._ready.append(job)
            self._changed.notify()

    def expect(self, files: int, *, receiving: bool) -> None:
        """How many files are begun and not yet hashed, and whether more bytes are to come."""
        with self._changed:
            self._at_hand = files
            self._receiving = receiving
            self._changed.notify_all()

    def close(self) -> None:
        """Threads return after the step they are at. Nothing stays mapped."""
        with self._changed:
            self._closed = True
            _close(self._ready)
            self._changed.notify_all()

    def work(self) -> None:
        """Hash until `close`. Raises OSError, EOFError; see `advance_together`."""
        buffer = pages(HASH_BUFFER)
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
            return MOST
        return min(MOST, max(LEAST, ceil_div(len(self._ready) + self._claimed, self._threads)))

    def _put_back(self, jobs: Sequence[J]) -> None:
        # Told apart before the others are anyone's again: another thread may finish those at once.
        finished = [job for job in jobs if not job.stretch.left]
        with self._changed:
            self._claimed -= len(jobs)
            # First in line: each is mapped, which holds a descriptor, so no more are begun than threads work on.
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
        return len(self._ready) >= READY * min(MOST, self._at_hand) or self._waiting_bytes() >= self._gather

    def _waiting_bytes(self) -> int:
        return sum(job.stretch.left for job in self._ready)


def _close(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.stretch.close()


def hash_threads(processors: int) -> int:
    """How many are worth it: vector units are shared by the two threads of a core, and somebody has to receive."""
    return max(1, processors // 2) if available() else processors
