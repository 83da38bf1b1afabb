"""Work that a coroutine gives back to the thread that waits for it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from fetcher.uncancelled import ended

T = TypeVar("T")


class Turns:
    """The work for one waiting thread. The coroutine awaits `turns(work)`; the thread runs it in `serve`.

    So as many threads read and hash as wait for ranges, and the event loop moves no bytes. A turn costs two thread switches.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def __call__(self, work: Callable[[], int]) -> int:
        """Return the result of `work`, run on the waiting thread. Raises its error. A cancellation waits for its end."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()

        def turn() -> None:
            try:
                count = work()
            except BaseException as error:  # noqa: BLE001  raised where it is awaited
                loop.call_soon_threadsafe(done.set_exception, error)
            else:
                loop.call_soon_threadsafe(done.set_result, count)

        self._work.put(turn)
        return await ended(done)

    def serve(self, running: Future[T]) -> T:
        """Run the work of the coroutine `running` until it ends; return its result. Raises its error."""
        running.add_done_callback(lambda _: self._work.put(None))
        try:
            self._run()
        except BaseException:  # a signal: the coroutine must not write into memory that its owner has left
            running.cancel()
            with suppress(BaseException):
                self._run()
            raise
        return running.result()

    def _run(self) -> None:
        while (turn := self._work.get()) is not None:
            turn()


class Running:
    """The ranges that some threads are waiting for, which another thread can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()
        self._ended = False

    @contextmanager
    def holding(self, future: Future[Any]) -> Iterator[None]:
        """Make `future` end with `end`, also if that was called before."""
        with self._lock:
            self._futures.add(future)
            if self._ended:
                future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._futures.discard(future)

    def end(self) -> None:
        """End all ranges, and those that begin later: their threads raise CancelledError."""
        with self._lock:
            self._ended = True
            for future in self._futures:
                future.cancel()
