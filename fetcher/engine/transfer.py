"""Pulls all ranges of all files: a TaskGroup of connections, and a few threads that write and hash.

::

    repeat on every connection until all files are sealed
        claim a range                            (handout, schedule: a synchronous decision)
        open it at the source, fill a buffer     (event loop; never touches the disk)
        write + XXH3 each buffer, hash it if it is next in the file        (writing thread; the next one is filled meanwhile)
        a small file: received whole, stored in a batch of its like        (whole: one thread)
        chunk finished: journal it, hash what is left of the prefix        (sealing: hashing thread)
        last chunk hashed: compare, sync, seal; or discard bad chunks and pull them again   (sealing, syncing)
        range failed: its missing rest becomes pending for another connection; back off

`_failed` handles every error of a source. Every error of the disk ends the fetch, except a failed sync (`syncing`). Errors of
the disk are wrapped where the disk is used, so any other OSError comes from the source. Only bytes that a file never had before
are progress and renew patience (`Incoming.advanced`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import replace

from fetcher.artifact import ORIGIN, ByteRange
from fetcher.engine.buffers import BufferPool
from fetcher.engine.handout import Handout
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import LEAST, ProgressWindow, RateLimit, SlowConnectionDetector
from fetcher.engine.pull import Pull
from fetcher.engine.receiving import Receiver, Written
from fetcher.engine.retry import Patience, gave_up
from fetcher.engine.schedule import Assignment
from fetcher.engine.sealing import Sealing
from fetcher.engine.states import State
from fetcher.engine.syncing import Syncing, disk_error
from fetcher.engine.whole import Whole, WholeFiles
from fetcher.errors import (
    FetchError,
    MirrorFailed,
    RangesUnsupported,
    RateLimited,
    SourceError,
    Stalled,
    StoreError,
    Transient,
    Unreachable,
    out_of_descriptors,
)
from fetcher.events import BytesReceived, MirrorAvoided, Retrying, Subscriber
from fetcher.filesystem import storing
from fetcher.manifest import ManifestFile
from fetcher.sources.base import Guide, Source, supplier_of
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease
from fetcher.values import dataclass

RESTARTS = 10
"""Times a file restarts because a server that cannot send parts broke off. A lossy link that drops a connection every few
minutes needs some restarts. A link that breaks off more often never delivers the file, and each restart discards all bytes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a transfer. Sizes in bytes, times in seconds."""

    connections: int
    files: int
    buffers: int
    buffer_size: int
    hash_lag: int
    write_threads: int
    write_buffer: int
    hash_threads: int
    hashed_together: int
    timeout_stall: float


class Transfer:
    """Fills every `Incoming`; `run` returns their manifest entries."""

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
        guide: Guide | None,
        on_event: Subscriber,
    ) -> None:
        self._files = {each.path: each for each in files}
        self._source = source
        self._lease = lease
        self._limits = limits
        self._patience = patience
        self._emit = on_event
        least = 1 if rate.limited else LEAST  # a rate limit of the user is not a trickle
        self._gain = ProgressWindow(limits.timeout_stall, least=least)
        self._handout = Handout(
            self._files,
            connections=limits.connections,
            open_files=limits.files,
            hash_lag=limits.hash_lag,
            judge=SlowConnectionDetector(max(1.0, limits.timeout_stall / 3), patience=limits.timeout_stall, least=least),
            guide=guide,
            on_event=on_event,
            changed=self._changed,
        )
        pool = BufferPool(limits.buffers, limits.buffer_size)
        self._receiver = Receiver(
            pool=pool,
            threads=limits.write_threads,
            buffer=limits.write_buffer,
            rate=rate,
            lease=lease,
            yielding=any(incoming.is_followed for incoming in self._files.values()),
            received=self._handout.received,
            written=self._written,
            hashed=self._hashed,
        )
        self._syncing = Syncing(
            self._handout.begun,
            lease=lease,
            journal=journal,
            spawn=self._spawn,
            fetch_again=self._restart,
            on_event=on_event,
        )
        self._sealing = Sealing(
            self._files,
            source=source,
            handout=self._handout,
            syncing=self._syncing,
            lease=lease,
            readers=self._receiver.threads,
            threads=limits.hash_threads,
            together=limits.hashed_together,
            hash_lag=limits.hash_lag,
            spawn=self._spawn,
            progressed=patience.progressed,
            on_event=on_event,
        )
        self._whole = WholeFiles(
            pool=pool,
            rate=rate,
            lease=lease,
            journal=journal,
            received=self._handout.received,
            stored=self._stored_whole,
            spawn=self._spawn,
        )
        self._gate = 0.0
        self._group: asyncio.TaskGroup
        self._trickled: set[str] = set()
        self.bytes_from = Counter[str]()

    @property
    def bytes_fetched(self) -> int:
        """The bytes received so far, also those that were discarded."""
        return self.bytes_from.total()

    async def run(self) -> dict[str, ManifestFile]:
        """Fill, sync and close all files. Returns path → manifest entry. Raises FetchError."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._sealing.begin()
                watching = self._group.create_task(self._handout.replace_tricklers())
                async with asyncio.TaskGroup() as connections:
                    for _ in range(self._limits.connections):
                        connections.create_task(self._connection())
                watching.cancel()
                self._sealing.stop()
        finally:
            # Wait until threads finish their buffer: they still use descriptors.
            self._sealing.stop()
            self._receiver.threads.shutdown(wait=True, cancel_futures=True)
            self._whole.close()
            self._sealing.close()
            self._syncing.close()
            for incoming in self._files.values():
                incoming.staged.close()
        return {path: incoming.sealed for path, incoming in self._files.items()}

    # Pulling

    async def _connection(self) -> None:
        failures = 0
        while assignment := await self._handout.claim():
            turn = assignment.turn
            if (turn is None or turn.supplier == ORIGIN) and (wait := self._gate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            incoming = self._files[assignment.path]
            cursor = incoming.cursor_of_the_whole() if assignment.stop is None else incoming.cursor(assignment.start)
            delay = 0.0
            try:
                await self._pull(assignment, incoming, cursor)
                failures = 0
            except SourceError as error:
                error.path = error.path or incoming.path
                failures += 1
                delay = self._failed(error, assignment, incoming, failures)
            except StoreError as error:
                if isinstance(cause := error.__cause__, OSError):
                    raise disk_error(self._lease, cause, doing="write the staged file", path=incoming.path) from error
                raise
            except asyncio.CancelledError:
                if assignment.stop is not None:
                    incoming.park(cursor)  # the next attempt resumes inside the chunk
                raise
            finally:
                self._handout.give_back(assignment)
            if incoming.state not in (State.SEALING, State.SEALED):
                self._return(assignment, incoming, cursor)
            self._sealing.settle(incoming)
            if delay:
                await asyncio.sleep(delay)

    async def _pull(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """Receive one range into the file. Bytes received before an error are kept."""
        whole = assignment.stop in (None, incoming.size) and assignment.start == 0
        wanted = None if whole or assignment.stop is None else ByteRange(assignment.start, assignment.stop)
        scope = asyncio.timeout(None)
        pull = Pull(assignment, scope)
        try:
            async with scope:
                with self._handout.pulling(pull):
                    async with (assignment.turn or self._source).open(incoming.file, wanted) as body:
                        self._handout.answered(pull)
                        pull.supplier = supplier_of(body)
                        cursor.supplied_by(pull.supplier)
                        whole = self._whole.suits(body, incoming, assignment)
                        await (self._whole if whole else self._receiver).receive(body, incoming, cursor, pull)
        except OSError as error:
            # Errors of the disk are StoreErrors by now. This error comes from the source, or from `Pull.abandon`.
            if not scope.expired():
                raise _of_the_source(error, incoming.path) from error
            if incoming.restarts_soon:
                return  # abandoned only because the file restarts
            self._handout.replaced(pull)
            raise self._abandoned(pull) from None
        self._handout.finished(pull)
        if incoming.size is None:
            with storing("write the staged file", incoming.path):
                incoming.end_unsized(cursor)

    def _abandoned(self, pull: Pull) -> Transient:
        """What an abandoned pull means. A mirror is reported once, however many connections to it trickle."""
        if pull.supplier == ORIGIN:
            return Stalled(f"a connection {pull.why}", path=pull.path)
        news = pull.supplier not in self._trickled
        self._trickled.add(pull.supplier)
        return MirrorFailed(f"a connection {pull.why}", mirror=pull.supplier, path=pull.path, notable=news)

    def _return(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """Return the missing rest of a range to the handout. Without ranges, restart the file."""
        if assignment.stop is not None:
            self._handout.return_rest(assignment, incoming, cursor)
        elif incoming.size != cursor.position:
            self._restart(incoming)

    def _written(self, incoming: Incoming, written: Written) -> None:
        self.bytes_from[written.supplier] += written.count
        further = incoming.advanced(written.count)
        if further:
            incoming.violations.answered()
        if self._gain.add(further):
            self._patience.progressed()
        self._emit(BytesReceived(incoming.path, written.count, written.supplier))
        if written.chunks:
            self._sealing.follow(incoming)
            self._syncing.written(written.chunks)

    def _hashed(self, incoming: Incoming, count: int) -> None:
        self._sealing.hashed(incoming, count)

    def _stored_whole(self, whole: Whole) -> None:
        self._written(whole.incoming, Written(len(whole.data), 0, whole.cursor.supplier))
        self._sealing.stored(whole.incoming, whole.outcome)

    # What an error means

    def _failed(self, error: SourceError, assignment: Assignment, incoming: Incoming, failures: int) -> float:
        """Return the seconds until the next range of this connection. Raises `error` if a retry cannot help."""
        match error:
            case RangesUnsupported() if assignment.stop is not None:
                # Several connections may find this out; the result is the same.
                incoming.file = replace(incoming.file, ranges=False)
                self._restart(incoming)
                return 0.0
            case MirrorFailed():  # it costs no patience: the mirror is left alone, and somebody else is asked now
                if error.notable:
                    self._emit(MirrorAvoided(error.mirror, error.message, incoming.path))
                return 0.0
            case Transient():
                incoming.violations.failed(error)
                self._count_restart(error, assignment, incoming)
                delay = self._patience.delay(error, failures)
                if isinstance(error, RateLimited):
                    self._gate = max(self._gate, time.monotonic() + delay)
                if isinstance(error, RateLimited) or error.retry_after is not None:
                    self._handout.refused()
                else:
                    self._handout.failed()
                self._emit(Retrying(error.reason, error.message, incoming.path, failures, delay))
                return delay
        raise error

    def _count_restart(self, error: Transient, assignment: Assignment, incoming: Incoming) -> None:
        """Count a restart of a file that can only be fetched as a whole. Raises `error` after too many restarts."""
        if assignment.stop is not None or not incoming.brought:
            return
        incoming.restarts += 1
        if incoming.restarts > RESTARTS:
            raise gave_up(error, f"the server does not support ranges, and broke off {incoming.restarts} times") from error

    # Callbacks

    def _changed(self) -> None:
        self._sealing.expect()

    def _restart(self, incoming: Incoming) -> None:
        self._sealing.begin_anew(incoming)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        try:
            self._group.create_task(work)
        except RuntimeError:  # the group is being cancelled, and a running write has just ended
            work.close()


def _of_the_source(error: OSError, path: str) -> FetchError:
    text = (error.strerror or type(error).__name__).lower()
    exhausted = out_of_descriptors(error, doing="ask the source", path=path)
    return exhausted or Unreachable(f"the connection to the source broke: {text}", path=path)
