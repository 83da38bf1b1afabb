"""All ranges of all files, pulled at once: a TaskGroup of connections, a few threads that write and hash.

::

    repeat on every connection until all files are sealed
        claim a range                            (handout, schedule: a synchronous decision)
        open it at the source, fill a buffer     (event loop; nothing here touches the disk)
        write + XXH3 each buffer                 (writing thread; the next one is filled meanwhile)
        a chunk is finished: journal it, let the file's SHA-256 follow the contiguous prefix   (verifying: hashing thread)
        the last chunk is hashed: compare, sync, seal; or throw away what is wrong and pull again   (verifying, syncing)
        the range failed: what is missing of it goes back, another connection claims it; back off

Every error of a source is decided in `_failed`; every error of the disk ends the fetch, except a failed sync (`syncing`). Where
an error was raised says whose it is: the disk's are wrapped where the disk is touched. Progress, which renews patience, is what
a file never had before (`Incoming.advanced`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace

from fetcher.artifact import ByteRange
from fetcher.engine.buffers import BufferPool
from fetcher.engine.handout import Handout
from fetcher.engine.incoming import Cursor, Incoming
from fetcher.engine.pace import LEAST, Gain, RateLimit, TrickleJudge
from fetcher.engine.pull import Pull
from fetcher.engine.receiving import Receiver, Written
from fetcher.engine.retry import Patience, gave_up
from fetcher.engine.schedule import Assignment
from fetcher.engine.syncing import Syncing, disk_error
from fetcher.engine.verifying import Verifying
from fetcher.errors import (
    FetchError,
    RangesUnsupported,
    RateLimited,
    SourceError,
    Stalled,
    StoreError,
    Transient,
    Unreachable,
    out_of_descriptors,
)
from fetcher.events import BytesReceived, Retrying, Subscriber
from fetcher.filesystem import storing
from fetcher.manifest import ManifestFile
from fetcher.sources.base import Source
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease

RESTARTS = 10
"""Times a file is begun anew because a server that can't send parts broke off. A lossy link that drops a connection every few
minutes needs some; what breaks off more often never comes to an end, and each time costs all that came before."""


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
        self._limits = limits
        self._patience = patience
        self._emit = on_event
        least = 1 if rate.limited else LEAST  # what the user holds back is no trickle
        self._gain = Gain(limits.timeout_stall, least=least)
        self._handout = Handout(
            self._files,
            connections=limits.connections,
            open_files=limits.files,
            hash_lag=limits.hash_lag,
            judge=TrickleJudge(max(1.0, limits.timeout_stall / 3), patience=limits.timeout_stall, least=least),
            on_event=on_event,
            changed=self._changed,
        )
        self._receiver = Receiver(
            pool=BufferPool(limits.buffers, limits.buffer_size),
            threads=limits.write_threads,
            rate=rate,
            lease=lease,
            received=self._handout.received,
            written=self._written,
        )
        self._syncing = Syncing(
            self._handout.begun,
            lease=lease,
            journal=journal,
            spawn=self._spawn,
            fetch_again=self._begin_anew,
            on_event=on_event,
        )
        self._verifying = Verifying(
            self._files,
            handout=self._handout,
            syncing=self._syncing,
            lease=lease,
            readers=self._receiver.threads,
            threads=limits.hash_threads,
            hash_lag=limits.hash_lag,
            spawn=self._spawn,
            progressed=patience.progressed,
            on_event=on_event,
        )
        self._gate = 0.0
        self._group: asyncio.TaskGroup
        self.bytes_fetched = 0

    async def run(self) -> dict[str, ManifestFile]:
        """Path → manifest entry of every file, all synced and closed. Raises FetchError."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._verifying.begin()
                watching = self._group.create_task(self._handout.replace_tricklers())
                async with asyncio.TaskGroup() as connections:
                    for _ in range(self._limits.connections):
                        connections.create_task(self._connection())
                watching.cancel()
                self._verifying.stop()
        finally:
            # Threads finish the buffer they hold, so that no descriptor is closed, or reused, under them.
            self._verifying.stop()
            self._receiver.threads.shutdown(wait=True, cancel_futures=True)
            self._verifying.close()
            self._syncing.close()
            for incoming in self._files.values():
                incoming.staged.close()
        return {path: incoming.sealed for path, incoming in self._files.items()}

    # Pulling

    async def _connection(self) -> None:
        failures = 0
        while assignment := await self._handout.claim():
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
                if isinstance(cause := error.__cause__, OSError):
                    raise disk_error(self._lease, cause, doing="write the staged file", path=incoming.path) from error
                raise
            except asyncio.CancelledError:
                if assignment.stop is not None:
                    incoming.park(cursor)  # what is begun is noted: the next attempt need not fetch it again
                raise
            finally:
                self._handout.give_back(assignment)
            self._return(assignment, incoming, cursor)
            self._verifying.settle(incoming)
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
                with self._handout.pulling(pull):
                    async with self._source.open(incoming.file, wanted) as body:
                        self._handout.answered(pull)
                        await self._receiver.receive(body, incoming, cursor, pull)
        except OSError as error:
            # The disk's errors are StoreErrors by now; what else is one comes from the source, or from our own abandoning.
            if not scope.expired():
                raise _of_the_source(error, incoming.path) from error
            if incoming.restarts_soon:
                return  # it was ended only because the file begins anew
            self._handout.replaced(pull)
            raise Stalled(f"a connection {pull.why}", path=incoming.path) from None
        self._handout.finished(pull)
        if incoming.size is None:
            with storing("write the staged file", incoming.path):
                incoming.end_unsized(cursor)

    def _return(self, assignment: Assignment, incoming: Incoming, cursor: Cursor) -> None:
        """What a range lacks is for another connection; a source without ranges can only begin anew."""
        if assignment.stop is not None:
            self._handout.return_rest(assignment, incoming, cursor)
        elif incoming.size != cursor.position:
            self._begin_anew(incoming)

    def _written(self, incoming: Incoming, written: Written) -> None:
        self.bytes_fetched += written.count
        further = incoming.advanced(written.count)
        if further:
            incoming.violations.answered()
        if self._gain.add(further):
            self._patience.progressed()
        self._emit(BytesReceived(incoming.path, written.count))
        if written.chunks:
            self._verifying.follow(incoming)
            self._syncing.written(written.chunks)

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
                    self._handout.refused()
                else:
                    self._handout.failed()
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

    # What the parts tell each other

    def _changed(self) -> None:
        self._verifying.expect()

    def _begin_anew(self, incoming: Incoming) -> None:
        self._verifying.begin_anew(incoming)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        try:
            self._group.create_task(work)
        except RuntimeError:  # the group is being cancelled: a write that was under way has just ended
            work.close()


def _of_the_source(error: OSError, path: str) -> FetchError:
    text = (error.strerror or type(error).__name__).lower()
    exhausted = out_of_descriptors(error, doing="ask the source", path=path)
    return exhausted or Unreachable(f"the connection to the source broke: {text}", path=path)
