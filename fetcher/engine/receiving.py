"""Moves a body into a file. A few threads write and hash the bytes of all connections.

A thread that writes the next bytes of a file also hashes them for its digest. It gets the frontier of the file from the event
loop with each piece of work, and the event loop takes it back at its end, also after an error.

::

    a body in the socket buffer of the kernel    a thread reads it into its own buffer and writes it
    any other body (chunked, local)              the event loop fills a buffer while a thread writes the previous one
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from fetcher.engine.buffers import BufferPool
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.pull import Pull
from fetcher.engine.turns import Turns
from fetcher.filesystem import storing
from fetcher.host.allocation import map_memory
from fetcher.sources.base import Body, DirectBody
from fetcher.store.lease import Lease
from fetcher.uncancelled import ended
from fetcher.values import dataclass

TURN = 8 * 1024 * 1024
"""Maximum bytes that a thread moves for one connection at a time. A switch to the thread and back, with the reports on the
event loop, costs 0.17 ms, as much as writing a megabyte."""

NICENESS = 10
"""Niceness of writing threads, within this process and its cgroup. On two processors one file of 2 GiB took 6.20 s instead of
6.59 (hashlib alone 5.63), and four files of 512 MiB 3.34 s instead of 3.59 (niceness 5: 3.43). Sixteen files took the
same. Without digests nobody hashes behind them, so they keep their priority: at niceness 10 other work on the machine gets ten
times their share (a store without digests beside a test suite took 17.0 s for 2 GiB instead of 5.1)."""


@dataclass(frozen=True, slots=True)
class Written:
    """The result of one write: its bytes, the number of chunks of 16 MiB that they finish, and who brought them."""

    count: int
    chunks: int
    supplier: str


class Receiver:
    """Receives bodies into files. Calls `received` for bytes that arrive, `written` for stored bytes, and `hashed` for those
    that were hashed as they came, on the event loop."""

    def __init__(
        self,
        *,
        pool: BufferPool,
        threads: int,
        buffer: int,
        rate: RateLimit,
        lease: Lease,
        yielding: bool,
        received: Callable[[int], None],
        written: Callable[[Incoming, Written], None],
        hashed: Callable[[Incoming, int], None],
    ) -> None:
        """`buffer`: bytes for each thread. `yielding`: whether others hash what these write, and need the processors more."""
        self._pool = pool
        self._buffer = buffer
        self._rate = rate
        self._lease = lease
        self._received = received
        self._written = written
        self._hashed = hashed
        self._scratch: list[memoryview] = []
        self._turns = Turns(threads)
        self.threads = ThreadPoolExecutor(threads, "write", initializer=_lower_priority if yielding else None)

    async def receive(self, body: Body, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        """Receive the part of `body` that belongs to the pull. Raises the errors of the body, and StoreError from the disk."""
        if (direct := body.direct) is not None:
            await self._receive_directly(direct, incoming, cursor, pull)
        else:
            await self._receive_buffered(body, incoming, cursor, pull)

    async def _receive_directly(self, body: DirectBody, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        def write(room: int) -> Written:
            # One buffer per thread, allocated when first needed. The most recently used one is still in a CPU's cache.
            buffer = self._scratch.pop() if self._scratch else map_memory(self._buffer)
            try:
                count = chunks = 0
                while count < room:
                    self._lease.check()
                    piece = buffer[: room - count]
                    count += (length := body.read(piece))
                    chunks += _stored(incoming, cursor, piece[:length])
                    if length < len(piece):
                        break
                return Written(count, chunks, pull.supplier)
            finally:
                self._scratch.append(buffer)

        end = pull.assignment.stop
        # At the end of the assignment, read once more: only then does the body know that nothing follows, and release its
        # connection. If another connection stole the rest, do not wait for it.
        while (room := pull.left(self._rate.piece(TURN))) or pull.assignment.stop == end:
            if not await body.readable(room):
                break
            with pull.held_up():
                await self._turns.take(partial(incoming.is_next, cursor))
            try:
                pull.promised = room = pull.left(room)
                if room == 0:
                    break
                writing = self._on_thread(partial(write, room), incoming, cursor)
                count = (await ended(writing)).count
            finally:
                self._turns.give_back()
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
                writing, buffer = self._write(incoming, cursor, buffer, count, pull.supplier), None
        finally:
            if buffer is not None:
                self._pool.give_back(buffer)
            if writing is not None:
                await ended(writing)  # the thread still uses the buffer and the descriptor

    def _write(
        self, incoming: Incoming, cursor: Cursor, buffer: memoryview, count: int, supplier: str
    ) -> asyncio.Future[Written]:
        def write() -> Written:
            self._lease.check()
            return Written(count, _stored(incoming, cursor, buffer[:count]), supplier)

        writing = self._on_thread(write, incoming, cursor)
        writing.add_done_callback(lambda _: self._pool.give_back(buffer))
        return writing

    def _on_thread(self, write: Callable[[], Written], incoming: Incoming, cursor: Cursor) -> asyncio.Future[Written]:
        def report(done: asyncio.Future[Written]) -> None:
            hashed = incoming.release(cursor)
            if not done.cancelled() and done.exception() is None:
                self._written(incoming, done.result())
            if hashed:
                self._hashed(incoming, hashed)

        incoming.claim(cursor)
        writing = asyncio.get_running_loop().run_in_executor(self.threads, write)
        writing.add_done_callback(report)
        return writing


def _stored(incoming: Incoming, cursor: Cursor, data: memoryview) -> int:
    """`Incoming.write`. Every OSError comes from the disk, also ETIMEDOUT, EPIPE and EINTR."""
    with storing("write the staged file", incoming.path):
        return incoming.write(cursor, data)


def _lower_priority() -> None:
    """Put the calling thread behind the hashing threads, which finish last. Bytes can wait in the kernel."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def write_threads(processors: int) -> int:
    """Return the number of writing threads: one more than processors, since threads wait for disks. One thread moves 0.8 GB/s
    (TCP on loopback), so 100 Gbit/s take sixteen. The limit is an estimate: two processors were measured."""
    return min(16, processors + 1)
