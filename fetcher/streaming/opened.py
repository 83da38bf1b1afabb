"""An artifact that is open at its source: its listing, and ranges of its files, for any thread."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

from fetcher.artifact import ArtifactRef, ByteRange, Listing, RemoteFile, redact
from fetcher.engine.choosing import pinned
from fetcher.engine.retry import Asker, Patience
from fetcher.errors import UsageError
from fetcher.events import Resolving, Subscriber
from fetcher.planning.paths import refuse_hostile_paths, without_duplicates
from fetcher.planning.selection import select
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.access import Access
from fetcher.sources.base import Packed, Source
from fetcher.streaming.comparing import Comparison
from fetcher.streaming.receiving import Range, no_parts, receive
from fetcher.streaming.turns import Running, Turns
from fetcher.transport.tls import TlsEventLoop

T = TypeVar("T")
Started = TypeVar("Started")

_LONGEST_GOODBYE = 5.0
"""Seconds for closing the connections. They are closed with the process otherwise."""


class OpenArtifact:
    """Made by `fetcher.api.open_source`. `files` are the selected ones of its listing, `revision` is the resolved one.

    Its event loop runs on a thread of its own. All methods may be called from any thread, also at the same time. Close it, or
    use it in a `with` block; garbage collection closes it too. It does not survive a fork.
    """

    def __init__(self, ref: ArtifactRef, settings: Settings, credentials: Access | None, on_event: Subscriber) -> None:
        """Resolve and list. Raises FetchError."""
        self.uri = redact(ref.uri)
        self.requires_proof = settings.require_digests or settings.require_checksums
        """Whether every file must be compared with a digest or checksum."""
        self._settings = settings
        self._on_event = on_event
        self._process = os.getpid()
        self._loop = TlsEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="source", daemon=True)
        self._thread.start()
        opened: list[Source] = []
        self._starting = threading.Lock()
        self.close = weakref.finalize(self, _close, self._loop, self._thread, opened, self._starting)
        """Close the connections. Ranges that are being read end with an error. Idempotent."""
        try:
            listing = self._run(self._listed(ref, credentials, opened))
            self.files = without_duplicates(select(listing.files, include=ref.include, exclude=ref.exclude))
            refuse_hostile_paths(file.path for file in self.files)
        except BaseException:
            self.close()
            raise
        self._source = opened[0]
        self.revision = listing.revision

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"{self.uri} is open in this process, and cannot be pickled; open it again in the other process")

    def described(self, files: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
        """Return `files` with everything that is published of them, which can cost a request for each.

        Raises SourceError, DigestUnavailable for a file without a digest or checksum that the settings require, and UsageError
        for a file of which no parts can be read.
        """
        described = pinned(self._run(self._source.describe(files, self._asker())), self._settings)
        for file in described:
            if file.size is None or not file.ranges:
                raise no_parts(file.path)
        return described

    def read(
        self,
        file: RemoteFile,
        byte_range: ByteRange,
        buffer: memoryview,
        seen: Callable[[memoryview], object] = lambda _: None,
        running: Running | None = None,
    ) -> None:
        """Fill `buffer` with a range of `file`. Retries, also in the middle. `seen` gets each piece in order.

        This thread receives the bytes. Nothing is compared: see `comparison`. `running` can end it early. Raises SourceError,
        UsageError if the source cannot send parts of files, and CancelledError if it is ended early.
        """
        wanted = Range(file, byte_range.start, byte_range.stop, buffer, seen)
        turns = Turns(self._loop)
        work = receive(wanted, self._source, Patience(self._settings.retry_for), turns, self._on_event)
        self._start(work, lambda: turns.start(work))
        with (running or Running()).holding(turns):
            turns.serve()

    def running(self) -> Running:
        """Return what can end several `read`s early."""
        return Running()

    def comparison(self, file: RemoteFile) -> Comparison:
        """Return a new comparison of `file`, one of `described`, with what is published of it."""
        return Comparison(file)

    async def _listed(self, ref: ArtifactRef, credentials: Access | None, opened: list[Source]) -> Listing:
        source = open_source(ref, self._settings, credentials=credentials)
        opened.append(source)
        self._on_event(Resolving(self.uri))
        ask = self._asker()
        revision = await source.resolve(ask)
        if isinstance(source, Packed) and await source.packing(revision, ask):
            raise UsageError(
                f"the files of {self.uri} are in archives, which cannot be read in parts; run `fetcher fetch`, and give the "
                "path that it prints"
            )
        return await source.list(revision, ask)

    def _asker(self) -> Asker:
        return Asker(Patience(self._settings.retry_for), self._on_event)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        running = self._start(work, lambda: asyncio.run_coroutine_threadsafe(work, self._loop))
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def _start(self, work: Coroutine[Any, Any, object], start: Callable[[], Started]) -> Started:
        if os.getpid() != self._process:
            work.close()
            raise RuntimeError(f"{self.uri} was opened before a fork, and its thread does not exist here; open it again")
        with self._starting:
            if self.close.alive:
                return start()
        work.close()
        raise RuntimeError(f"{self.uri} was closed; open it again")


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, opened: list[Source], starting: threading.Lock) -> None:
    """End every range that is being read, close the source, and stop the thread."""
    if not thread.is_alive():
        return
    if thread is threading.current_thread():  # the garbage collector ran on it: nobody may wait for it here
        loop.stop()
        return

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for source in opened:
            await source.aclose()

    with starting:  # what found it open is on the loop now, so `end` sees it
        pass
    with suppress(Exception):
        asyncio.run_coroutine_threadsafe(end(), loop).result(_LONGEST_GOODBYE)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(_LONGEST_GOODBYE)
    if not thread.is_alive():
        loop.close()
