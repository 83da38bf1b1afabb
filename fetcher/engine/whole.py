"""Small files: received whole into memory, then written, hashed, compared and synced in batches by one thread.

::

    a connection receives a whole file into a buffer, hands it over, and asks for the next file
    one thread takes all files that wait    write + XXH3, SHA-256 in lanes, one write to the journal, sync
    the event loop seals each of them

A file on the ordinary way changes threads five times, which takes longer than all work on its bytes. Here a batch changes
threads once. A file that differs from its digest is left to the ordinary way, which finds out why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from fetcher.artifact import ByteRange
from fetcher.engine.buffers import BufferPool
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.pull import Pull
from fetcher.engine.schedule import Assignment
from fetcher.engine.states import Change, State
from fetcher.engine.syncing import disk_error
from fetcher.filesystem import storing
from fetcher.integrity.lanes import advance
from fetcher.manifest import ManifestFile
from fetcher.sources.base import Body
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease
from fetcher.store.pages import start_writing_back
from fetcher.uncancelled import ended

LARGEST = 1024 * 1024
"""Bytes of the largest file that is received whole. A larger one takes long enough for its changes of threads not to matter,
and is worth resuming after a part."""


@dataclass(slots=True)
class Whole:
    """A received file in `data`, the beginning of `buffer`. `outcome`, once it is stored: its entry in the manifest, the error
    of its sync, or None if its content is not the published one."""

    incoming: Incoming
    cursor: Cursor
    buffer: memoryview
    data: memoryview
    outcome: ManifestFile | OSError | None = field(default=None)


class WholeFiles:
    """Receives small files. Calls `received` for bytes that arrive, and `stored` on the event loop for each file in `outcome`.

    `spawn` starts a task that ends with the transfer.
    """

    def __init__(
        self,
        *,
        pool: BufferPool,
        rate: RateLimit,
        lease: Lease,
        journal: Journal,
        received: Callable[[int], None],
        stored: Callable[[Whole], None],
        spawn: Callable[..., None],
    ) -> None:
        self._pool = pool
        self._rate = rate
        self._lease = lease
        self._journal = journal
        self._received = received
        self._stored = stored
        self._spawn = spawn
        self._waiting: list[Whole] = []
        self._storing = False
        self._thread = ThreadPoolExecutor(1, "whole")

    def suits(self, body: Body, incoming: Incoming, assignment: Assignment) -> bool:
        """Whether the assignment is all of a small file, of which nothing is present.

        A body that a thread can take from the kernel goes the ordinary way: it did not arrive together with its head.
        """
        size = incoming.size
        all_of_it = assignment.start == 0 and assignment.stop in (None, size) and incoming.staged.held == 0
        return all_of_it and body.direct is None and size is not None and size <= min(LARGEST, self._pool.size - 1)

    async def receive(self, body: Body, incoming: Incoming, cursor: Cursor, pull: Pull) -> None:
        """Receive the file, and hand it over to the thread. Raises the errors of the body; then its bytes are dropped."""
        buffer, count = await self._pool.borrow(), 0
        try:
            while length := await body.readinto(buffer[count : count + self._rate.piece(len(buffer) - count)]):
                count += length
                pull.came(length)
                self._received(length)
                await self._rate.spend(length)
        except BaseException:
            self._pool.give_back(buffer)
            raise
        if incoming.state is not State.OPEN or count != incoming.size:
            self._pool.give_back(buffer)  # it restarts soon
            return
        incoming.change(Change.SEAL)
        self._waiting.append(Whole(incoming, cursor, buffer, buffer[:count]))
        if not self._storing:
            self._storing = True
            self._spawn(self._store_waiting())

    def close(self) -> None:
        """Stop, and block until the thread has ended: it still uses descriptors."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _store_waiting(self) -> None:
        """Store batch after batch. While the thread stores one, the next one is received. Raises FetchError."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await ended(asyncio.get_running_loop().run_in_executor(self._thread, self._store, batch))
                for each in batch:
                    self._pool.give_back(each.buffer)
                    self._stored(each)
        finally:
            self._storing = False

    # On the thread

    def _store(self, batch: list[Whole]) -> None:
        """Set the outcome of each file. Raises StoreError if the disk refuses to write, LeaseLost."""
        self._lease.check()
        with storing("write the journal"), self._journal.together():
            for each in batch:
                self._write(each)
        _hash(batch)
        right = [each for each in batch if each.incoming.mismatch() is None]
        for each in right:
            # All writes to the device begin before the first one is waited for.
            with suppress(OSError), each.incoming.staged.opened() as descriptor:
                start_writing_back(descriptor, ByteRange(0, len(each.data)))
        for each in right:
            each.outcome = _sealed(each.incoming)

    def _write(self, whole: Whole) -> None:
        try:
            whole.incoming.write(whole.cursor, whole.data)
        except OSError as error:
            raise disk_error(self._lease, error, doing="write the staged file", path=whole.incoming.path) from error


def _hash(batch: list[Whole]) -> None:
    """Move the hash frontier of each file to its end, in the lanes of a vector unit."""
    frontiers = [(each.incoming.frontier, each.data) for each in batch]
    advance([(hasher, data) for frontier, data in frontiers if frontier for hasher in frontier.hashers])
    for frontier, data in frontiers:
        if frontier is not None:
            frontier.position = len(data)


def _sealed(incoming: Incoming) -> ManifestFile | OSError:
    try:
        return incoming.staged.seal(checksums=incoming.checksums, drop_pages=incoming.drops_pages)
    except OSError as error:
        return error
