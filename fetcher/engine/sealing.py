"""From received bytes to a sealed file: hash the contiguous prefix, compare, seal; or fetch bad chunks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from fetcher.artifact import ByteRange, Checksum, Digest
from fetcher.engine.handout import Handout
from fetcher.engine.hashing import Hashing
from fetcher.engine.incoming import Incoming
from fetcher.engine.states import Change, State
from fetcher.engine.syncing import Spawn, Syncing, disk_error
from fetcher.errors import DigestMismatch, LocalIOError
from fetcher.events import BytesDiscarded, BytesHashed, Disputed, FileVerified, MirrorBanned, Mismatched, Subscriber
from fetcher.filesystem import storing
from fetcher.integrity.frontier import Stretch
from fetcher.manifest import ManifestFile
from fetcher.sources.base import Source
from fetcher.store.lease import Lease
from fetcher.values import dataclass

REFETCHES = 2
"""Times a file with a wrong digest is fetched again. One refetch corrects a bit flipped on the way, two also correct a proxy
that cached the flipped bit. Content that is wrong three times is wrong at the source."""
GATHER = 128 * 1024 * 1024
"""Maximum bytes that wait for more files to be hashed with: still in the page cache, a fraction of a second's work."""


@dataclass(frozen=True, slots=True)
class HashJob:
    """`part` of a file, a job for the hashing threads."""

    incoming: Incoming
    stretch: Stretch
    part: ByteRange


class Sealing:
    """Moves each file from one state to the next (`states`). Calls `progressed` when a file is hashed further than before."""

    def __init__(
        self,
        files: Mapping[str, Incoming],
        *,
        source: Source,
        handout: Handout,
        syncing: Syncing,
        lease: Lease,
        readers: Executor,
        threads: int,
        together: int,
        hash_lag: int,
        spawn: Spawn,
        progressed: Callable[[], None],
        on_event: Subscriber,
    ) -> None:
        self._files = files
        self._source = source
        self._banned: set[str] = set()
        self._handout = handout
        self._syncing = syncing
        self._lease = lease
        self._readers = readers
        self._count = threads
        self._spawn = spawn
        self._progressed = progressed
        self._emit = on_event
        self._threads = ThreadPoolExecutor(threads, "hash")
        self._hashing = Hashing[HashJob](
            threads=threads, together=together, gather=min(GATHER, hash_lag // 2), done=self._report
        )
        self._loop: asyncio.AbstractEventLoop

    def begin(self) -> None:
        """Start the hashing threads, and hash the bytes that each file already has."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self._count):
            self._spawn(self._hash())
        for incoming in self._files.values():
            if incoming.frontier and incoming.frontier.position:
                self._emit(BytesHashed(incoming.path, incoming.frontier.position))
            self._handout.refill(incoming)
            self.follow(incoming)

    def expect(self) -> None:
        """Pass the present number of begun files to the hashing threads."""
        self._hashing.expect(len(self._handout.begun), receiving=bool(self._handout.pulls))

    def stop(self) -> None:
        """Make the hashing threads return after their current step."""
        self._hashing.close()

    def close(self) -> None:
        """Stop, and block until the threads have ended: they still use descriptors."""
        self._hashing.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # From state to state

    def settle(self, incoming: Incoming) -> None:
        """Update a file after a range, a hash or a seal has ended, also with an error. Restart the file if requested and
        unused, and make missing ranges pending."""
        if incoming.state in (State.SEALING, State.SEALED):
            return
        if incoming.restarts_soon:
            self._handout.clear(incoming)
            if incoming.state is State.RESTARTING and not self._handout.active(incoming):
                with storing("restart the staged file", incoming.path):
                    self._emit(BytesDiscarded(incoming.path, incoming.restart()))
                self._handout.refill(incoming)
        elif not self._handout.active(incoming) and not incoming.staged.complete:
            self._handout.refill(incoming)
        self.follow(incoming)
        self._handout.wake()

    def follow(self, incoming: Incoming) -> None:
        """Hash what can be hashed, and seal the file after its last byte."""
        if incoming.state is not State.OPEN:
            return
        if (stretch := incoming.stretch()) is not None:
            incoming.change(Change.HASH)
            self._hashing.add(HashJob(incoming, stretch, ByteRange(stretch.frontier.position, stretch.limit)))
        elif incoming.staged.complete and incoming.hashed and not self._handout.active(incoming):
            incoming.change(Change.SEAL)
            self._spawn(self._finish(incoming))

    def begin_anew(self, incoming: Incoming) -> None:
        """Restart the file in a new inode as soon as nobody uses it (`settle`)."""
        incoming.change(Change.RESTART)
        self._handout.abandon(incoming, "was ended because its file restarts")

    def stored(self, incoming: Incoming, outcome: ManifestFile | OSError | None) -> None:
        """Seal a file that was received whole (`whole`). It is fetched again if its sync failed or its content is wrong."""
        self._emit(BytesHashed(incoming.path, incoming.size or 0))
        match outcome:
            case ManifestFile() as entry:
                self._sealed(incoming, entry)
            case OSError() as error:
                self._syncing.failed(incoming, error)
                incoming.change(Change.DONE)
            case None:
                incoming.change(Change.DONE)
        self.settle(incoming)
        self._handout.wake()

    # Hashing

    async def _hash(self) -> None:
        try:
            await self._loop.run_in_executor(self._threads, self._hashing.work)
        except OSError as error:
            raise disk_error(self._lease, error, doing="read back the staged file", path=error.filename) from error
        except EOFError as error:
            raise LocalIOError(f"another process truncated the staged file: {error}") from error

    def _report(self, job: HashJob) -> None:
        """Report a finished job. Called by a hashing thread."""
        job.incoming.note_state(job.stretch.frontier)
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._followed(job)))

    async def _followed(self, job: HashJob) -> None:
        incoming = job.incoming
        job.stretch.frontier.give_back(job.stretch)
        incoming.change(Change.DONE)
        if incoming.hashed_further():
            self._progressed()
        self.hashed(incoming, len(job.part))
        self.settle(incoming)
        if incoming.drops_pages:
            await self._loop.run_in_executor(self._readers, incoming.drop_hashed, job.part)

    def hashed(self, incoming: Incoming, count: int) -> None:
        """Report `count` hashed bytes. Those that are hashed as they come are no other progress than their coming."""
        incoming.hashed_further()
        self._emit(BytesHashed(incoming.path, count))
        self._handout.wake()

    # The end of a file

    async def _finish(self, incoming: Incoming) -> None:
        """Compare, sync and close; or fetch bad chunks again."""
        if missing := incoming.staged.without_crcs():
            try:
                await self._loop.run_in_executor(self._readers, incoming.staged.compute_crcs, missing)
            except OSError as error:
                raise disk_error(self._lease, error, doing="read back the staged file", path=incoming.path) from error
        if mismatch := incoming.mismatch():
            await self._mismatched(incoming, *mismatch)
            incoming.change(Change.DONE)
        else:
            await self._seal(incoming)
        self.settle(incoming)
        self._handout.wake()

    async def _mismatched(self, incoming: Incoming, expected: Digest | Checksum, actual: str) -> None:
        damaged = await self._loop.run_in_executor(self._readers, incoming.damaged_chunks)
        if not damaged and self._dispute(incoming):
            return
        incoming.refetches += 1
        if incoming.refetches > REFETCHES:
            incoming.staged.discard()
            published = "the checksum that the store publishes" if isinstance(expected, Checksum) else "its pin"
            raise DigestMismatch(
                f"{incoming.path}: expected {expected}, but the source sends {actual}, even after {REFETCHES} refetches; "
                f"the file is damaged at the source or on the way, or {published} is wrong; other files stay resumable",
                path=incoming.path,
                expected=str(expected),
                actual=actual,
            )
        self._emit(Mismatched(incoming.path, str(expected), actual, incoming.refetches, REFETCHES))
        if damaged:
            self._emit(BytesDiscarded(incoming.path, incoming.forget(damaged)))
        else:
            incoming.change(Change.RESTART)

    def _dispute(self, incoming: Incoming) -> bool:
        """Drop what mirrors may have brought wrong. Returns False if the origin brought all of the file.

        What a banned one brought may come from anybody: the others are not in doubt. Otherwise the origin brings it. Who is to
        blame shows once the digest of the file is right.
        """
        chunks: Mapping[str, Sequence[int]] = incoming.brought_by(self._banned)
        if not chunks:
            doubt = incoming.doubt()
            if doubt is None:
                return False
            self._source.disputed(incoming.file, doubt.suspects)
            chunks = doubt.chunks
        for supplier, indices in chunks.items():
            dropped = incoming.forget_supplied(supplier, indices)
            self._emit(Disputed(incoming.path, supplier, dropped))
            self._emit(BytesDiscarded(incoming.path, dropped))
        return True

    def _judge(self, incoming: Incoming) -> None:
        """Ban the suppliers that sent other bytes of the file than its digest is of. All others are cleared."""
        liars = incoming.liars()
        self._source.judged(incoming.file, set(incoming.staged.suppliers.values()), liars)
        for liar in sorted(liars - self._banned):
            self._emit(MirrorBanned(liar, incoming.path))
        self._banned |= liars

    async def _seal(self, incoming: Incoming) -> None:
        entry = await self._syncing.seal(incoming)
        if entry is None:
            incoming.change(Change.DONE)
        else:
            self._sealed(incoming, entry)

    def _sealed(self, incoming: Incoming, entry: ManifestFile) -> None:
        incoming.entry = entry
        incoming.change(Change.SEALED)
        if incoming.state is State.SEALED:
            if entry.digests:
                self._judge(incoming)
            self._handout.sealed(incoming)
            self._progressed()
            self._emit(FileVerified(incoming.path, entry.size, bool(entry.digests)))
