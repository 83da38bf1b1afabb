"""A few threads that take pieces of work in order, until all are done or the first fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from fetcher.host.processors import cpu_count

T = TypeVar("T")

MOST_THREADS = 256
_FEWEST, _ENOUGH = 4, 16


def default_threads(*, network: bool = False, busy: bool = False) -> int:
    """Four at least, since a disk is fast only when it is asked for several things at once, but one a processor if they are
    `busy` (four copied 30 % slower to tmpfs than two, on two processors). Sixteen at most, and over a network, where each
    waits for its own answer."""
    if network:
        return _ENOUGH
    return min(max(1 if busy else _FEWEST, cpu_count()), _ENOUGH)


def each(pieces: Iterable[T], work: Callable[[T], None], *, threads: int) -> None:
    """`work` on every piece, begun in order. Raises the first error once the pieces begun are over, without beginning others.

    An exception in the waiting thread (a signal) is raised at once: nobody waits for a read that hangs.
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
    """`size` bytes for each thread that asks."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._own = threading.local()

    @property
    def mine(self) -> memoryview:
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
