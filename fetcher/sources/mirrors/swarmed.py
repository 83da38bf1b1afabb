"""A source with peers: nodes that fetch or have the same artifact, none of which is trusted.

The listing and all digests are those of the source, and only files with a digest come from peers: it is compared before the
file is published. `guiding` says which chunk comes from whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.events import Subscriber
from fetcher.sources.base import Body, Derived, Guide, Source
from fetcher.sources.mirrors.fetch import Fetch, Peers
from fetcher.sources.mirrors.guiding import Guiding


class SwarmedSource(Derived):
    """The files of `source`, with bytes of `peers` too, under the cache `key`. `names`: the addresses of peers as given.

    `passed_on`: whether a server is known to pass on what this fetch has. Closes the transport of `peers` at the end.
    """

    def __init__(self, source: Source, peers: Peers, *, key: str, names: Sequence[str], passed_on: bool) -> None:
        super().__init__(source)
        self._peers = peers
        self._key = key
        self._names = tuple(names)
        self._passed_on = passed_on
        self._guiding: Guiding | None = None
        self._running: asyncio.Task[None] | None = None
        self._suspects: dict[str, set[str]] = {}

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        peers = self._names if file.digests and file.size and file.ranges else ()
        return (*peers, *self._source.mirrors(file))

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        """Begin to ask peers what they have of `files`."""
        self._source.begin(files, listing=listing, node=node, on_event=on_event)
        self._stop()
        self._guiding = None
        if listing is None:
            return None
        fetch = Fetch(self._key, files, listing, node, self._passed_on and node is not None)
        if not any(fetch.shared.values()):
            return None
        self._guiding = Guiding(fetch, self._peers, self._source, on_event)
        self._running = asyncio.create_task(self._guiding.run())
        return self._guiding

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        self._source.disputed(file, suspects)
        known = self._suspects.setdefault(file.path, set())
        if self._guiding is not None:
            self._guiding.disputed(file.path, set(suspects) - known)
        known.update(suspects)

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        self._source.judged(file, suppliers, liars)
        suspects = self._suspects.pop(file.path, set())
        if self._guiding is not None:
            self._guiding.judged(suppliers, suspects, liars)

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        """Open a range for somebody who is not guided. One that begins a chunk may come from a peer, and then ends with it."""
        wanted = byte_range or ByteRange(0, file.size or 0)
        guiding, turn = self._guiding, None
        if guiding is not None and guiding.covers(file.path) and not guiding.idle() and wanted.start % CHUNK_SIZE == 0:
            turn = guiding.turn_for(file.path, wanted.start)
        if turn is None:
            async with self._source.open(file, byte_range) as body:
                yield body
            return
        try:
            async with turn.open(file, ByteRange(wanted.start, min(turn.part.stop, wanted.stop))) as body:
                yield body
        finally:
            turn.over()

    async def aclose(self) -> None:
        running = self._stop()
        try:
            if running is not None:
                with suppress(asyncio.CancelledError):
                    await running
            await self._peers.transport.aclose()
        finally:
            await self._source.aclose()

    def _stop(self) -> asyncio.Task[None] | None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        return running
