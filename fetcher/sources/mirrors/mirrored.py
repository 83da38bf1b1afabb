"""A source with caches in front of it: the listing and all digests are its own, bytes come from whoever brings them.

Only files with a digest come from mirrors: it is compared before the file is published. A mirror that fails raises
MirrorFailed, and the engine asks for the rest of the range again. `planning.suppliers` decides who is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from fetcher.artifact import CHUNK_SIZE, ORIGIN, ByteRange, RemoteFile
from fetcher.errors import ConfigurationError, MirrorFailed, SourceError, Transient
from fetcher.planning.suppliers import Suppliers
from fetcher.quantities import ceil_div
from fetcher.sources.base import Body, Derived, Source
from fetcher.sources.mirrors.mirror import Mirror, opened
from fetcher.sources.mirrors.supplied import SuppliedBody, why
from fetcher.transport.client import HttpTransport

STALL = 5.0
"""Seconds without an answer or a byte after which a mirror has failed. The origin gets `--timeout-stall`: nobody else has its
bytes."""


class MirroredSource(Derived):
    """The files of `source`, with bytes of `mirrors` too. They are asked through `transport`, which is closed at the end."""

    def __init__(
        self,
        source: Source,
        mirrors: Sequence[Mirror],
        transport: HttpTransport,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(source)
        self._mirrors = {mirror.url: mirror for mirror in mirrors}
        self._transport = transport
        self._clock = clock
        self._suppliers = Suppliers(tuple(self._mirrors))

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        """Those that may have the file. A file without a digest, or that comes in one piece only, is for the origin alone."""
        return tuple(self._addresses(file)) if file.digests and file.size and file.ranges else ()

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        self._suppliers.disputed(file.path, suspects)

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        self._suppliers.judged(file.path, liars)

    async def aclose(self) -> None:
        try:
            await self._transport.aclose()
        finally:
            await self._source.aclose()

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        """Open the range at the supplier whose turn it is. A range that continues a chunk ends with that chunk.

        Raises MirrorFailed if a mirror was asked and somebody else is to be asked now.
        """
        addresses = self._addresses(file) if self.mirrors(file) else {}
        if not addresses:
            async with self._source.open(file, byte_range) as body:
                yield body
            return
        wanted = byte_range or ByteRange(0, file.size or 0)
        begun = wanted.start % CHUNK_SIZE != 0
        choice = self._suppliers.choose(file.path, self._clock(), among=addresses, begun=begun)
        end = ceil_div(wanted.start + 1, CHUNK_SIZE) * CHUNK_SIZE
        if choice.one_chunk and end < wanted.stop:
            # Like a server that announces a shorter part: the rest is asked for again, and may come from another supplier.
            byte_range = wanted = ByteRange(wanted.start, end)
        name = choice.supplier
        self._suppliers.opened(name, self._clock())
        try:
            with self._blamed(name, file.path):
                if name == ORIGIN:
                    async with self._source.open(file, byte_range) as body:
                        yield SuppliedBody(body, name, partial(self._report, name))
                else:
                    async with opened(self._transport, addresses[name], file, wanted) as body:
                        yield SuppliedBody(body, name, partial(self._report, name))
            self._suppliers.complete(name)
        finally:
            self._suppliers.ended(name, self._clock())

    @contextmanager
    def _blamed(self, name: str, path: str) -> Iterator[None]:
        """Record a failure of the supplier within the block. Raises MirrorFailed for an error of a mirror, whatever it is."""
        try:
            yield
        except MirrorFailed:
            raise
        except asyncio.CancelledError:
            # The engine gave up a connection that trickled. (Or the file begins again: then a mirror rests for a moment.)
            self._suppliers.failed(name, self._clock())
            raise
        except (SourceError, ConfigurationError, OSError) as error:
            if name == ORIGIN:
                if isinstance(error, Transient | OSError):
                    self._suppliers.failed(name, self._clock())
                raise
            wait = error.retry_after if isinstance(error, Transient) else None
            news = self._suppliers.failed(name, self._clock(), wait)
            raise MirrorFailed(why(error), mirror=name, path=path, notable=news) from error

    def _report(self, name: str, count: int) -> None:
        """Tell the suppliers what has come. Raises MirrorFailed if the body shall end."""
        now = self._clock()
        self._suppliers.came(name, count, now)
        if self._suppliers.ends(name, now):
            news = self._suppliers.news(name)
            raise MirrorFailed(news or "another supplier takes over", mirror=name, notable=bool(news))

    def _addresses(self, file: RemoteFile) -> Mapping[str, str]:
        """Where each mirror has the file, by its name."""
        published = self._source.address(file)
        addresses = {name: mirror.address(published) for name, mirror in self._mirrors.items()}
        return {name: address for name, address in addresses.items() if address is not None}
