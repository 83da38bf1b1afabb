"""All ranges of all files, pulled at once: a TaskGroup of connections, a few threads that write and hash.

::

    repeat on every connection until all files are verified
        take the next range                      (schedule: a synchronous decision)
        open it at the source, fill a buffer     (event loop; nothing here touches the disk)
        write + XXH3 each buffer                 (writing thread; the next one is filled meanwhile)
        a chunk is finished: journal it, let the file's SHA-256 follow the contiguous prefix   (hashing thread)
        the last chunk is hashed: compare, sync, seal; or throw away what is wrong and pull again
        the range failed: what is missing of it goes back, another connection takes it; back off

Every error of a source is decided in `_failed`; every error of the disk ends the fetch, except a failed sync, after which the
file is fetched once more into a new inode. Where an error was raised says whose it is: the disk's are wrapped where the disk is
touched. Progress, which renews patience, is what a file never had before (`Incoming.advanced`).
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.engine.buffers import BufferPool
from fetcher.engine.concurrency import Concurrency
from fetcher.engine.hashing import Hashing
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import LEAST, Gain, RateLimit, TrickleJudge
from fetcher.engine.pull import Pull
from fetcher.engine.receiving import Receiver, Written
from fetcher.engine.retry import Patience, gave_up
from fetcher.engine.schedule import Assignment, Progress, Schedule
from fetcher.errors import (
    DigestMismatch,
    FetchError,
    LeaseLost,
    LocalIOError,
    RangesUnsupported,
    RateLimited,
    SourceError,
    Stalled,
    StoreError,
    Transient,
    Unreachable,
    from_os_error,
    out_of_descriptors,
)
from fetcher.events import (
    BytesDiscarded,
    BytesHashed,
    BytesReceived,
    ConnectionsActive,
    FileVerified,
    Mismatched,
    Retrying,
    Subscriber,
)
from fetcher.filesystem import storing
from fetcher.integrity.frontier import Stretch
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import LONGEST_RANGE
from fetcher.sources.base import Source
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease

T = TypeVar("T")

REFETCHES = 2
"""Times a file whose digest is wrong is fetched again. One cures a bit flipped on the way, two a flipped bit and a proxy that
had cached it; what is wrong three times is wrong at the source."""
RESTARTS = 10
"""Times a file is begun anew because a server that can't send parts broke off. A lossy link that drops a connection every few
minutes needs some; what breaks off more often never comes to an end, and each time costs all that came before."""
GATHER = 128 * 1024 * 1024
"""Bytes that wait at most for more files to be hashed with them: still in the page cache, a fraction of a second's work."""
AHEAD = 512 * 1024 * 1024
"""Bytes that could be hashed, from which on no range is begun: receiving would only take processor time from what the end waits
for. Of 12.9 s for one file of 3 GiB the hashing thread ran 8.8 and waited 3.6 for a processor. A second's work or more, so that
a link that brings less for a moment is not waited for."""
SYNC_EVERY = 32
"""Finished chunks (512 MiB) between two syncs of data and journal: what power loss may cost, at about one fsync a second."""


@dataclass(frozen=True, slots=True)
class HashJob:
    """`part` of a file, which the hashing threads are given."""

    incoming: Incoming
    stretch: Stretch
    part: ByteRange


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a transfer. Sizes in bytes, times in seconds."""

    connections: int
    files: int
    buffers: int
    buffer_size: int
    hash_lag: int
    write_threads: int
    hash_threads: int
    timeout_stall: float


class Transfer:
    """Fills every `Incoming`; `run` returns what the manifest says of each."""

    def __init__(
        self,
        files: Iterable[Incoming],
        *,
        source: Source,
        lease: Lease,
        journal: Journal,
        limits: Limits,
        rate: RateLimit,
        patience: Patience,
        on_event: Subscriber,
    ) -> None:
        self._files = {each.path: each for each in files}
        self._source = source
        self._lease = lease
        self._journal = journal
        self._limits = limits
        self._patience = patience
        self._emit = on_event
        self._receiver = Receiver(
            pool=BufferPool(limits.buffers, limits.buffer_size),
            threads=limits.write_threads,
            rate=rate,
            lease=lease,
            received=self._received,
            written=self._written,
        )
        self._schedule = Schedule()
        # What the user holds back is no trickle.
        least = 1 if rate.limited else LEAST
        self._judge = TrickleJudge(max(1.0, limits.timeout_stall / 3), patience=limits.timeout_stall, least=least)
        self._gain = Gain(limits.timeout_stall, least=least)
        self._entries: dict[str, ManifestFile] = {}
        self._pulls: set[Pull] = set()
        self._begun: dict[str, Incoming] = {}
        self._concurrency = Concurrency(limits.connections, clock=time.monotonic)
        self._out = 0
        self._gate = 0.0
        self._unsynced = 0
        self._wake = asyncio.Event()
        self._hashers = ThreadPoolExecutor(limits.hash_threads, "hash")
        self._hashing = Hashing[HashJob](
            threads=limits.hash_threads, gather=min(GATHER, limits.hash_lag // 2), done=self._report
        )
        self._syncer = ThreadPoolExecutor(1, "sync")
        self._group: asyncio.TaskGroup
        self._loop: asyncio.AbstractEventLoop
        self.bytes_fetched = 0

    async def run(self) -> dict[str, ManifestFile]:
        """Path → manifest entry of every file, all synced and closed. Raises FetchError."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as self._group:
                for _ in range(self._limits.hash_threads):
                    self._spawn(self._hash())
                for incoming in self._files.values():
                    if incoming.frontier and incoming.frontier.position:
                        self._emit(BytesHashed(incoming.path, incoming.frontier.position))
                    self._refill(incoming)
                    self._follow(incoming)
                watching = self._group.create_task(self._replace_tricklers())
                async with asyncio.TaskGroup() as connections:
                    for _ in range(self._limits.connections):
                        connections.create_task(self._connection())
                watching.cancel()
                self._hashing.close()
        finally:
            # Threads finish the buffer they hold, so that no descriptor is closed, or reused, under them.
            self._hashing.close()
            for pool in (self._receiver.threads, self._hashers):
                pool.shutdown(wait=True, cancel_futures=True)
            # A sync may take many seconds and holds no buffer; nobody who was interrupted waits for it.
            self._syncer.shutdown(wait=False, cancel_futures=True)
            for incoming in self._files.values():
                incoming.staged.close()
        return self._entries

    # What to pull

    @property
    def _finished(self) -> bool:
        return len(self._entries) == len(self._files)

    def _refill(self, incoming: Incoming) -> None:
        self._schedule.clear(incoming.path)
        self._schedule.add(incoming.path, incoming.missing(), size=incoming.size or 0)
        self._wake.set()

    async def _take(self) -> Assignment | None:
        """The next assignment, waiting for one while files are unfinished; None when all are done."""
        while not self._finished:
            if self._out < self._concurrency.connections and (assignment := self._next()):
                self._out += 1
                self._begun[assignment.path] = incoming = self._files[assignment.path]
                incoming.staged.keep_open()
                return assignment
            self._wake.clear()
            await self._wake.wait()
        self._wake.set()
        return None

    def _next(self) -> Assignment | None:
        if sum(each.ready for each in self._begun.values()) > min(AHEAD, self._limits.hash_lag):
            return None  # whoever has hashed something wakes us
        # Several connections on one file leave gaps as long as their ranges, at which its hash frontier waits.
        crowd = -(-self._concurrency.connections // max(1, self._schedule.open_files))
        longest = self._concurrency.range_length(self._schedule.missing, shortest=CHUNK_SIZE, longest=LONGEST_RANGE // crowd)
        lagging = sum(each.lag for each in self._begun.values()) > self._limits.hash_lag
        begin = len(self._begun) < self._limits.files  # each is open until it is sealed
        return self._schedule.take(longest=longest, lagging=lagging, begin=begin) or self._schedule.take_over(self._progress())

    def _progress(self) -> Iterator[Progress]:
        """Of all connections whose range another one may take over a part of."""
        for pull in self._pulls:
            rate = pull.received / max(pull.body_seconds, 1e-3) if pull.received else self._judge.typical
            if not self._files[pull.path].restart_wanted:
                yield Progress(pull.assignment, pull.position + pull.promised, rate)

    # Pulling

    async def _connection(self) -> None:
        failures = 0
        while assignment := await self._take():
            if (wait := self._gate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            incoming = self._files[assignment.path]
            cursor = incoming.cursor(assignment.start)
            delay = 0.0
            try:
                await self._pull(assignment, incoming, cursor)
                failures = 0
            except SourceError as error:
                error.path = error.path or incoming.path
                failures += 1
                delay = self._failed(error, assignment, incoming, failures)
            except StoreError as error:
                if isinstance(error.__cause__, OSError):
                    raise self._disk_error(error.__cause__, "write the staged file", incoming.path) from error
                raise
            except asyncio.CancelledError:
                if assignment.stop is not None:
                    incoming.park(cursor)  # what is begun is noted: whoever continues need not fetch it again
                raise
            finally:
                self._schedule.finish(assignment)
                self._out -= 1
            self._return(assignment, incoming, cursor)
            self._settle(incoming)
            if delay:
                await asyncio.sleep(delay)

    async def _pull(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """Receive one range into the file. What was received before an error counts."""
        whole = assignment.stop in (None, incoming.size) and assignment.start == 0
        wanted = None if whole or assignment.stop is None else ByteRange(assignment.start, assignment.stop)
        scope = asyncio.timeout(None)
        pull = Pull(assignment, scope)
        try:
            async with scope:
                with self._pulling(pull):
                    async with self._source.open(incoming.file, wanted) as body:
                        self._concurrency.answered(time.monotonic() - pull.asked_at)
                        await self._receiver.receive(body, incoming, cursor, pull)
        except OSError as error:
            # The disk's errors are StoreErrors by now; what else is one comes from the source, or from our own abandoning.
            if not scope.expired():
                raise _of_the_source(error, incoming.path) from error
            if incoming.restart_wanted:
                return  # it was ended only because the file begins anew
            self._judge.replaced(incoming.path)
            raise Stalled(f"a connection {pull.why}", path=incoming.path) from None
        self._completed(pull, incoming)
        if incoming.size is None:
            with storing("write the staged file", incoming.path):
                incoming.end_unsized(cursor)

    @contextmanager
    def _pulling(self, pull: Pull) -> Iterator[None]:
        """All know of the pull as long as it lasts."""
        self._pulls.add(pull)
        self._tell_hashing()
        self._emit(ConnectionsActive(len(self._pulls)))
        try:
            yield
        finally:
            self._pulls.discard(pull)
            self._tell_hashing()
            self._emit(ConnectionsActive(len(self._pulls)))

    def _completed(self, pull: Pull, incoming: Incoming) -> None:
        if pull.received:
            self._judge.finished(incoming.path, pull.received / max(pull.body_seconds, 1e-3))

    def _return(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """What a range lacks is for another connection; a source without ranges can only begin anew."""
        if assignment.stop is None:
            if incoming.size != cursor.position:
                incoming.restart_wanted = True
        elif cursor.position < assignment.stop:
            incoming.park(cursor)
            rest = ByteRange(cursor.position, assignment.stop)
            self._schedule.add(incoming.path, [rest], size=incoming.size or 0)

    def _received(self, count: int) -> None:
        before = self._concurrency.connections
        self._concurrency.received(count)
        if self._concurrency.connections > before:
            self._wake.set()

    def _written(self, incoming: Incoming, written: Written) -> None:
        self.bytes_fetched += written.count
        further = incoming.advanced(written.count)
        if further:
            incoming.violations.answered()
        if self._gain.add(further):
            self._patience.progressed()
        self._emit(BytesReceived(incoming.path, written.count))
        if written.chunks:
            self._unsynced += written.chunks
            self._follow(incoming)
            self._sync_if_due()

    async def _replace_tricklers(self) -> None:
        """Abandon connections that are far slower than the others, or as good as silent; another one takes what is missing."""
        while True:
            await asyncio.sleep(self._judge.window / 4)
            self._compare()
            for pull in self._pulls:
                self._measure(pull)
            self._wake.set()  # what lasts long by now may be taken over by a connection that found nothing to do

    def _compare(self) -> None:
        window, judge = self._judge.window, self._judge
        told = {pull: pull.since_compared.rate for pull in self._pulls if pull.since_compared.seconds >= window / 8}
        due = [pull for pull in told if pull.since_compared.seconds >= window * judge.grace(pull.path)]
        for pull in due:
            siblings = [rate for other, rate in told.items() if other is not pull]
            if judge.slow(told[pull], [*siblings, *judge.alike(pull.path)]):
                pull.abandon("far slower than the others was replaced")
            pull.compared()

    def _measure(self, pull: Pull) -> None:
        since = pull.since_measured
        if self._judge.dead(since.count, since.seconds, pull.path):
            pull.abandon(f"that brought only {since.count:,} bytes in {since.seconds:.0f} s was replaced (--timeout-stall)")
        elif since.seconds >= self._judge.patience * self._judge.grace(pull.path):
            pull.measured()

    # What an error means

    def _failed(self, error: SourceError, assignment: Assignment, incoming: Incoming, failures: int) -> float:
        """Seconds this connection waits before its next range. Raises what can't be cured here."""
        match error:
            case RangesUnsupported() if assignment.stop is not None:
                # Several connections may learn this at once; each says the same.
                incoming.file = replace(incoming.file, ranges=False)
                self._begin_anew(incoming)
                return 0.0
            case Transient():
                incoming.violations.failed(error)
                self._count_restart(error, assignment, incoming)
                delay = self._patience.delay(error, failures)
                if isinstance(error, RateLimited):
                    self._gate = max(self._gate, time.monotonic() + delay)
                if isinstance(error, RateLimited) or error.retry_after is not None:
                    self._concurrency.refused()
                else:
                    self._concurrency.failed()
                self._emit(Retrying(error.reason, error.message, incoming.path, failures, delay))
                return delay
        raise error

    def _count_restart(self, error: Transient, assignment: Assignment, incoming: Incoming) -> None:
        """A whole file that broke off can only be fetched from its beginning. Raises `error` when that was done too often."""
        if assignment.stop is not None or not incoming.brought:
            return
        incoming.restarts += 1
        if incoming.restarts > RESTARTS:
            raise gave_up(error, f"the server can't send parts of a file, and broke off {incoming.restarts} times") from error

    def _begin_anew(self, incoming: Incoming) -> None:
        """As soon as nobody writes to it any more (`_settle`), the file starts over in a new inode."""
        incoming.restart_wanted = True
        for pull in self._pulls:
            if pull.path == incoming.path:
                pull.abandon("was ended because its file begins anew")

    def _settle(self, incoming: Incoming) -> None:
        """After a range ended, well or not: begin anew if that is wanted and nobody writes; give back what is missing."""
        if incoming.path in self._entries or incoming.sealing:
            return
        active = self._schedule.active(incoming.path)
        if incoming.restart_wanted:
            self._schedule.clear(incoming.path)
            if not active and not incoming.hashing:
                with storing("begin the staged file anew", incoming.path):
                    self._emit(BytesDiscarded(incoming.path, incoming.restart()))
                self._refill(incoming)
        elif not active and not incoming.staged.complete:
            self._refill(incoming)
        self._follow(incoming)
        self._wake.set()

    # Verifying

    def _follow(self, incoming: Incoming) -> None:
        """Let the hash frontier move if it can, and end the file when it has arrived."""
        if incoming.hashing or incoming.sealing or incoming.restart_wanted or incoming.path in self._entries:
            return
        if (stretch := incoming.stretch()) is not None:
            incoming.hashing = True
            self._hashing.add(HashJob(incoming, stretch, ByteRange(stretch.frontier.position, stretch.limit)))
        elif incoming.staged.complete and incoming.hashed and not self._schedule.active(incoming.path):
            incoming.sealing = True
            self._spawn(self._finish(incoming))

    async def _hash(self) -> None:
        try:
            await self._on(self._hashers, self._hashing.work)
        except OSError as error:
            raise self._disk_error(error, "read back the staged file", error.filename) from error
        except EOFError as error:
            raise LocalIOError(f"the staged file was cut short by somebody else: {error}") from error

    async def _hashed(self, job: HashJob) -> None:
        job.incoming.hashing = False
        self._emit(BytesHashed(job.incoming.path, len(job.part)))
        if job.incoming.hashed_further(job.part.stop):
            self._patience.progressed()
        self._settle(job.incoming)
        if job.incoming.drops_pages:
            await self._on(self._receiver.threads, lambda: job.incoming.drop_hashed(job.part))

    def _report(self, job: HashJob) -> None:
        """Called by a hashing thread."""
        job.incoming.note_state()
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._hashed(job)))

    def _tell_hashing(self) -> None:
        self._hashing.expect(len(self._begun), receiving=bool(self._pulls))

    async def _finish(self, incoming: Incoming) -> None:
        """Compare, sync and close; or decide what to fetch again."""
        if found := incoming.mismatch():
            await self._mismatched(incoming, str(found[0]), found[1])
        else:
            await self._seal(incoming)
        incoming.sealing = False
        self._settle(incoming)
        self._wake.set()

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
        damaged = await self._on(self._receiver.threads, incoming.damaged_chunks)
        if damaged:
            self._emit(BytesDiscarded(incoming.path, incoming.forget(damaged)))
        else:
            incoming.restart_wanted = True

    async def _seal(self, incoming: Incoming) -> None:
        try:
            entry = await self._on(self._syncer, lambda: incoming.staged.seal(drop_pages=incoming.drops_pages))
        except OSError as error:
            self._sync_failed(incoming, error)
            return
        self._entries[incoming.path] = entry
        self._judge.sealed(incoming.path)
        self._patience.progressed()
        self._begun.pop(incoming.path, None)
        self._tell_hashing()
        self._emit(FileVerified(incoming.path, entry.size, bool(entry.digests)))

    # Syncing

    def _sync_if_due(self) -> None:
        if self._unsynced >= SYNC_EVERY:
            self._unsynced = 0
            self._spawn(self._sync())

    async def _sync(self) -> None:
        """Data first, then the journal that speaks of it."""
        for incoming in [each for each in self._begun.values() if not each.sealing]:
            try:
                await self._on(self._syncer, incoming.sync)
            except OSError as error:
                self._sync_failed(incoming, error)
        with storing("sync the journal"):
            await self._on(self._syncer, self._journal.sync)

    def _sync_failed(self, incoming: Incoming, error: OSError) -> None:
        # After a failed fsync the kernel may have dropped the pages and reports it once: syncing again would lie.
        incoming.sync_failures += 1
        if incoming.sync_failures > 1:
            raise self._disk_error(error, "sync the staged file", incoming.path) from error
        self._emit(Retrying("IOError", f"sync failed, fetching the file again: {error}", incoming.path, 1, 0.0))
        self._begin_anew(incoming)

    def _disk_error(self, error: OSError, doing: str, path: str | None) -> FetchError:
        """A staged file that is gone may have gone with the lease: its new owner renamed the directory."""
        if error.errno == errno.ENOENT:
            try:
                self._lease.renew()
            except LeaseLost as lost:
                return lost
            except OSError:
                pass
        return from_os_error(error, doing=doing, path=path)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        try:
            self._group.create_task(work)
        except RuntimeError:  # the group is being cancelled: a write that was under way has just ended
            work.close()

    async def _on(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, call)


def _of_the_source(error: OSError, path: str) -> FetchError:
    text = (error.strerror or type(error).__name__).lower()
    exhausted = out_of_descriptors(error, doing="ask the source", path=path)
    return exhausted or Unreachable(f"the connection to the source broke: {text}", path=path)
