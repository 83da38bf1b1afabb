"""From received bytes to a sealed file: hash what is contiguous, compare, seal; or decide what is fetched again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from fetcher.artifact import ByteRange
from fetcher.engine.handout import Handout
from fetcher.engine.hashing import Hashing
from fetcher.engine.incoming import Incoming
from fetcher.engine.states import Change, State
from fetcher.engine.syncing import Spawn, Syncing, disk_error
from fetcher.errors import DigestMismatch, LocalIOError
from fetcher.events import BytesDiscarded, BytesHashed, FileVerified, Mismatched, Subscriber
from fetcher.filesystem import storing
from fetcher.integrity.frontier import Stretch
from fetcher.store.lease import Lease

REFETCHES = 2
"""Times a file whose digest is wrong is fetched again. One cures a bit flipped on the way, two a flipped bit and a proxy that
had cached it; what is wrong three times is wrong at the source."""
GATHER = 128 * 1024 * 1024
"""Bytes that wait at most for more files to be hashed with them: still in the page cache, a fraction of a second's work."""


@dataclass(frozen=True, slots=True)
class HashJob:
    """`part` of a file, which the hashing threads are given."""

    incoming: Incoming
    stretch: Stretch
    part: ByteRange


class Verifying:
    """Moves each file from one state to the next (`states`). `progressed` is called for what was never verified before."""

    def __init__(
        self,
        files: Mapping[str, Incoming],
        *,
        handout: Handout,
        syncing: Syncing,
        lease: Lease,
        readers: Executor,
        threads: int,
        hash_lag: int,
        spawn: Spawn,
        progressed: Callable[[], None],
        on_event: Subscriber,
    ) -> None:
        self._files = files
        self._handout = handout
        self._syncing = syncing
        self._lease = lease
        self._readers = readers
        self._count = threads
        self._spawn = spawn
        self._progressed = progressed
        self._emit = on_event
        self._threads = ThreadPoolExecutor(threads, "hash")
        self._hashing = Hashing[HashJob](threads=threads, gather=min(GATHER, hash_lag // 2), done=self._report)
        self._loop: asyncio.AbstractEventLoop

    def begin(self) -> None:
        """Begin with what is there of each file already."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self._count):
            self._spawn(self._hash())
        for incoming in self._files.values():
            if incoming.frontier and incoming.frontier.position:
                self._emit(BytesHashed(incoming.path, incoming.frontier.position))
            self._handout.refill(incoming)
            self.follow(incoming)

    def expect(self) -> None:
        """How many files are on their way has changed."""
        self._hashing.expect(len(self._handout.begun), receiving=bool(self._handout.pulls))

    def stop(self) -> None:
        """All is verified, or given up."""
        self._hashing.close()

    def close(self) -> None:
        """Blocks until the threads have ended, so that no descriptor is closed under them."""
        self._hashing.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # From state to state

    def settle(self, incoming: Incoming) -> None:
        """After a range, a hash or a seal has ended, well or not: begin anew if that is wanted and nobody is at it; give back
        what is missing."""
        if incoming.state in (State.SEALING, State.SEALED):
            return
        if incoming.restarts_soon:
            self._handout.clear(incoming)
            if incoming.state is State.RESTARTING and not self._handout.active(incoming):
                with storing("begin the staged file anew", incoming.path):
                    self._emit(BytesDiscarded(incoming.path, incoming.restart()))
                self._handout.refill(incoming)
        elif not self._handout.active(incoming) and not incoming.staged.complete:
            self._handout.refill(incoming)
        self.follow(incoming)
        self._handout.wake()

    def follow(self, incoming: Incoming) -> None:
        """Let the hash frontier move if it can, and seal the file when it has arrived."""
        if incoming.state is not State.OPEN:
            return
        if (stretch := incoming.stretch()) is not None:
            incoming.change(Change.HASH)
            self._hashing.add(HashJob(incoming, stretch, ByteRange(stretch.frontier.position, stretch.limit)))
        elif incoming.staged.complete and incoming.hashed and not self._handout.active(incoming):
            incoming.change(Change.SEAL)
            self._spawn(self._finish(incoming))

    def begin_anew(self, incoming: Incoming) -> None:
        """As soon as nobody is at it any more (`settle`), the file starts over in a new inode."""
        incoming.change(Change.RESTART)
        self._handout.abandon(incoming, "was ended because its file begins anew")

    # Hashing

    async def _hash(self) -> None:
        try:
            await self._loop.run_in_executor(self._threads, self._hashing.work)
        except OSError as error:
            raise disk_error(self._lease, error, doing="read back the staged file", path=error.filename) from error
        except EOFError as error:
            raise LocalIOError(f"the staged file was cut short by somebody else: {error}") from error

    def _report(self, job: HashJob) -> None:
        """Called by a hashing thread."""
        job.incoming.note_state()
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._hashed(job)))

    async def _hashed(self, job: HashJob) -> None:
        incoming = job.incoming
        incoming.change(Change.DONE)
        self._emit(BytesHashed(incoming.path, len(job.part)))
        if incoming.hashed_further(job.part.stop):
            self._progressed()
        self.settle(incoming)
        if incoming.drops_pages:
            await self._loop.run_in_executor(self._readers, incoming.drop_hashed, job.part)

    # The end of a file

    async def _finish(self, incoming: Incoming) -> None:
        """Compare, sync and close; or decide what to fetch again."""
        if found := incoming.mismatch():
            await self._mismatched(incoming, str(found[0]), found[1])
            incoming.change(Change.DONE)
        else:
            await self._seal(incoming)
        self.settle(incoming)
        self._handout.wake()

    async def _mismatched(self, incoming: Incoming, expected: str, actual: str) -> None:
        incoming.refetches += 1
        if incoming.refetches > REFETCHES:
            incoming.staged.discard()
            raise DigestMismatch(
                f"{incoming.path}: expected {expected}, but the source sends {actual}, also after {REFETCHES} refetches; "
                "the file is damaged at the source or on the way, or its pin is wrong; all other files stay resumable",
                path=incoming.path,
                expected=expected,
                actual=actual,
            )
        self._emit(Mismatched(incoming.path, expected, actual, incoming.refetches, REFETCHES))
        damaged = await self._loop.run_in_executor(self._readers, incoming.damaged_chunks)
        if damaged:
            self._emit(BytesDiscarded(incoming.path, incoming.forget(damaged)))
        else:
            incoming.change(Change.RESTART)

    async def _seal(self, incoming: Incoming) -> None:
        entry = await self._syncing.seal(incoming)
        if entry is None:
            incoming.change(Change.DONE)
            return
        incoming.entry = entry
        incoming.change(Change.SEALED)
        if incoming.state is State.SEALED:
            self._handout.sealed(incoming)
            self._progressed()
            self._emit(FileVerified(incoming.path, entry.size, bool(entry.digests)))
