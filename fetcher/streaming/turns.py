"""A coroutine, and the thread that waits for it and does the work that it gives back."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from fetcher.uncancelled import ended


class Turns:
    """One coroutine on the event loop `loop`, for one waiting thread. It awaits `turns(work)`; the thread runs it in `serve`.

    So as many threads read and hash as wait for ranges, and the event loop moves no bytes. A turn costs two thread switches.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, work: Callable[[], int]) -> int:
        """Return the result of `work`, run on the waiting thread. Raises its error. A cancellation waits for its end."""
        done: asyncio.Future[int] = self._loop.create_future()

        def turn() -> None:
            try:
                count = work()
            except BaseException as error:  # noqa: BLE001  raised where it is awaited
                self._loop.call_soon_threadsafe(done.set_exception, error)
            else:
                self._loop.call_soon_threadsafe(done.set_result, count)

        self._work.put(turn)
        return await ended(done)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Start the coroutine on its loop. Its thread calls `serve` next. Raises RuntimeError if the loop is closed."""

        def start() -> None:
            self._task = self._loop.create_task(coroutine)
            self._task.add_done_callback(lambda _: self._work.put(None))

        self._loop.call_soon_threadsafe(start)

    def cancel(self) -> None:
        """Cancel the coroutine, from any thread. Its thread serves it until it has ended."""

        def cancel() -> None:
            if self._task is not None:
                self._task.cancel()

        with suppress(RuntimeError):  # the loop is closed, so the coroutine has ended
            self._loop.call_soon_threadsafe(cancel)

    def serve(self) -> None:
        """Run the work of the coroutine until it has ended. Raises its error, and CancelledError if it was cancelled.

        Only its own end is its end, not that somebody cancels it: until then it can ask for one more turn, which nobody would
        take, or write into memory that its owner has left.
        """
        try:
            self._run()
        except BaseException:  # a signal
            self.cancel()
            with suppress(BaseException):
                self._run()
            raise
        if self._task is None or self._task.cancelled():
            raise CancelledError
        self._task.result()

    def _run(self) -> None:
        while (turn := self._work.get()) is not None:
            turn()


class Running:
    """The ranges that some threads are waiting for, which another thread can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: set[Turns] = set()
        self._ended = False

    @contextmanager
    def holding(self, turns: Turns) -> Iterator[None]:
        """Make `turns` end with `end`, also if that was called before."""
        with self._lock:
            self._served.add(turns)
            if self._ended:
                turns.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._served.discard(turns)

    def end(self) -> None:
        """End all ranges, and those that begin later: their threads raise CancelledError."""
        with self._lock:
            self._ended = True
            for turns in self._served:
                turns.cancel()
