"""From a body into a file: what a connection brings is written and hashed by a few threads.

::

    a body that waits in the kernel    a thread takes it from there into its own buffer and writes it
    any other (chunked, local)         the event loop fills a buffer of the pool while a thread writes the one before
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from fetcher.engine.buffers import BufferPool
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.pull import Pull
from fetcher.filesystem import storing
from fetcher.host.allocation import pages
from fetcher.planning.memory import THREAD_BUFFER
from fetcher.sources.base import Body, DirectBody
from fetcher.store.lease import Lease
from fetcher.uncancelled import ended

TURN = 8 * THREAD_BUFFER
"""Bytes a thread moves at most before another connection has its turn: a hop from the event loop and back, with what is told
there, costs 0.17 ms, as much as writing a megabyte."""

NICENESS = 10
"""Of threads that write, within this process and its cgroup. On two processors one file of 2 GiB took 6.20 s instead of 6.59
(hashlib alone 5.63), four of 512 MiB 3.34 instead of 3.59 (niceness 5: 3.43); sixteen, and nothing verified, the same."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a thread did: bytes, and how many chunks of 16 MiB are finished by them."""

    count: int
    chunks: int


class Receiver:
    """`received` is told of bytes as they come, `written` when they are in the file; both on the event loop."""

    def __init__(
        self,
        *,
        pool: BufferPool,
        threads: int,
        rate: RateLimit,
        lease: Lease,
        received: Callable[[int], None],
        written: Callable[[Incoming, Written], None],
    ) -> None:
        self._pool = pool
        self._rate = rate
        self._lease = lease
        self._received = received
        self._written = written
        self._scratch: list[memoryview] = []
        self.threads = ThreadPoolExecutor(threads, "write", initializer=_lower_priority)

    async def receive(self, body: Body, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        """All of `body` that belongs to the pull. Raises as the body does, and StoreError for what the disk refuses."""
        if (direct := body.direct) is not None:
            await self._receive_directly(direct, incoming, cursor, pull)
        else:
            await self._receive_buffered(body, incoming, cursor, pull)

    async def _receive_directly(self, body: DirectBody, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        def write(room: int) -> Written:
            # As many buffers as threads, made when first needed; the one given back last is still in a CPU's cache.
            buffer = self._scratch.pop() if self._scratch else pages(THREAD_BUFFER)
            try:
                count = chunks = 0
                while count < room:
                    self._lease.check()
                    piece = buffer[: room - count]
                    count += (came := body.read(piece))
                    chunks += _stored(incoming, cursor, piece[:came])
                    if came < len(piece):
                        break
                return Written(count, chunks)
            finally:
                self._scratch.append(buffer)

        end = pull.assignment.stop
        # At its own end the body is asked once more: only then does it know that nothing follows, and give its connection back.
        # What another connection has taken over is not waited for.
        while (room := pull.left(self._rate.piece(TURN))) or pull.assignment.stop == end:
            if not await body.readable(room):
                break
            pull.promised = room = pull.left(room)
            if room == 0:
                break
            try:
                writing = self._on_thread(partial(write, room), incoming)
                count = (await ended(writing)).count
            finally:
                pull.promised = 0
            if count:
                pull.came(count)
            self._received(count)
            await self._rate.spend(count)

    async def _receive_buffered(self, body: Body, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        buffer: memoryview | None = None
        writing: asyncio.Future[Written] | None = None
        try:
            while True:
                buffer = await self._pool.borrow()
                count = 0
                if room := pull.left(self._rate.piece(len(buffer))):
                    count = pull.left(await body.readinto(buffer[:room]))
                if count == 0:
                    break
                pull.came(count)
                self._received(count)
                await self._rate.spend(count)
                if writing is not None:
                    await ended(writing)
                writing, buffer = self._write(incoming, cursor, buffer, count), None
        finally:
            if buffer is not None:
                self._pool.give_back(buffer)
            if writing is not None:
                await ended(writing)  # its buffer and its descriptor are in use until then

    def _write(self, incoming: Incoming, cursor: Cursor, buffer: memoryview, count: int) -> asyncio.Future[Written]:
        def write() -> Written:
            self._lease.check()
            return Written(count, _stored(incoming, cursor, buffer[:count]))

        writing = self._on_thread(write, incoming)
        writing.add_done_callback(lambda _: self._pool.give_back(buffer))
        return writing

    def _on_thread(self, write: Callable[[], Written], incoming: Incoming) -> asyncio.Future[Written]:
        def tell(done: asyncio.Future[Written]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._written(incoming, done.result())

        writing = asyncio.get_running_loop().run_in_executor(self.threads, write)
        writing.add_done_callback(tell)
        return writing


def _stored(incoming: Incoming, cursor: Cursor, data: memoryview) -> int:
    """`Incoming.write`. What goes wrong here is the disk's doing, whatever Python calls it: ETIMEDOUT, EPIPE, EINTR."""
    with storing("write the staged file", incoming.path):
        return incoming.write(cursor, data)


def _lower_priority() -> None:
    """Behind the threads that hash, which the end waits for; bytes can wait in the kernel. Of the thread that calls this."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def write_threads(processors: int) -> int:
    """How many: one more than processors, since disks make them wait."""
    return min(4, processors + 1)
