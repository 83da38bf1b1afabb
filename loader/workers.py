"""A few threads that process pieces of work in order, until all are done or one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from fetcher.host.processors import cpu_count

T = TypeVar("T")

MOST_THREADS = 256
_FEWEST, _ENOUGH = 4, 16


def default_threads(*, network: bool = False, busy: bool = False) -> int:
    """Return the number of threads: one for each processor, between four and sixteen.

    At least four, because a disk is fast only with several requests in flight. `busy` threads have no such minimum (on two
    processors, four copied 30 % slower to tmpfs than two). `network`: always sixteen, because each waits for its own answer.
    """
    if network:
        return _ENOUGH
    return min(max(1 if busy else _FEWEST, cpu_count()), _ENOUGH)


def run_on_threads(pieces: Iterable[T], work: Callable[[T], None], *, threads: int) -> None:
    """Call `work` on every piece, started in order. After an error no new piece is started, and the error is raised when the
    running ones have ended.

    An exception in the calling thread (a signal) is raised at once: it does not wait for a read that hangs.
    """
    workers = _Workers(pieces, work)
    started = [threading.Thread(target=workers.work_on, name=f"worker-{number}", daemon=True) for number in range(threads)]
    try:
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    finally:
        workers.stop()
    if workers.error is not None:
        raise workers.error


class OwnBuffer:
    """A buffer of `size` bytes for each thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._own = threading.local()

    @property
    def mine(self) -> memoryview:
        """The buffer of the calling thread."""
        if not hasattr(self._own, "buffer"):
            self._own.buffer = memoryview(bytearray(self._size))
        buffer: memoryview = self._own.buffer
        return buffer


class _Workers(Generic[T]):
    def __init__(self, pieces: Iterable[T], work: Callable[[T], None]) -> None:
        self._pieces = iter(pieces)
        self._work = work
        self._turn = threading.Lock()
        self._stopped = False
        self.error: BaseException | None = None

    def stop(self) -> None:
        self._stopped = True

    def work_on(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._work(piece[0])
        except BaseException as error:  # noqa: BLE001 - raised by `each`
            with self._turn:
                self.error = self.error or error
                self._stopped = True

    def _next(self) -> tuple[T] | None:
        with self._turn:
            if self._stopped:
                return None
            for piece in self._pieces:
                return (piece,)
            return None
