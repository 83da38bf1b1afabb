"""A source with mirrors: the listing and all digests are those of the origin, bytes come from whoever brings them.

Only files with a digest come from mirrors: it is compared before the file is published. A mirror that fails raises
MirrorFailed, and the engine asks for the rest of the range again. `planning.suppliers` decides who is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

from fetcher.artifact import CHUNK_SIZE, ORIGIN, ArtifactRef, ByteRange, RemoteFile, listing_digest
from fetcher.errors import ConfigurationError, FetchError, MirrorFailed, SourceError, Transient
from fetcher.planning.memory import READ_BUFFER
from fetcher.planning.suppliers import Suppliers
from fetcher.quantities import ceil_div
from fetcher.settings import Settings, is_served
from fetcher.sources.base import Asking, Body, Derived, DirectBody, Packed, Packing, Source, once
from fetcher.sources.mirrors.mirror import Mirror, read_secret
from fetcher.transport.client import HttpTransport
from fetcher.transport.trust import Identity

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
        self._listing: str | None = None

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        described = await self._source.describe(files, ask)
        self._listing = listing_digest(described)
        return described

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        """Those that may have the file. A file without a digest, or that comes in one piece only, is for the origin alone."""
        return tuple(self._addresses(file)) if file.digests and file.size and file.ranges else ()

    def disputed(self, file: RemoteFile, supplier: str) -> None:
        self._suppliers.disputed(file.path, supplier)

    def judged(self, file: RemoteFile, liars: Collection[str]) -> None:
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
                        yield SuppliedBody(body, name, self._suppliers, self._clock)
                else:
                    async with self._mirrors[name].open(self._transport, addresses[name], file, wanted) as body:
                        yield SuppliedBody(body, name, self._suppliers, self._clock)
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
            raise MirrorFailed(_why(error), mirror=name, path=path, notable=news) from error

    def _addresses(self, file: RemoteFile) -> Mapping[str, str]:
        """Where each mirror has the file, by its name."""
        published = self._source.address(file)
        addresses = {
            name: mirror.address(file, listing=self._listing, published=published) for name, mirror in self._mirrors.items()
        }
        return {name: address for name, address in addresses.items() if address is not None}


class MirroredPackedSource(MirroredSource):
    """The same for a source whose listed files can be archives. Those are nobody's but the origin's: a node keeps what it has
    unpacked, and a cache has no address of a registry."""

    def __init__(self, source: Source, packed: Packed, mirrors: Sequence[Mirror], transport: HttpTransport) -> None:
        super().__init__(source, mirrors, transport)
        self._packed = packed

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        packing = await self._packed.packing(revision, ask)
        if packing is not None:
            self._mirrors = {}
        return packing


class SuppliedBody:
    """A body of a known supplier, which is told what comes and may have to end before its time."""

    def __init__(self, body: Body, supplier: str, suppliers: Suppliers, clock: Callable[[], float]) -> None:
        self._body = body
        self.supplier = supplier
        self._suppliers = suppliers
        self._clock = clock
        self._count = 0

    @property
    def direct(self) -> DirectBody | None:
        return self if self._body.direct is not None else None

    async def readable(self, room: int) -> bool:
        self._report()
        direct = self._body.direct
        return direct is not None and await direct.readable(room)

    def read(self, buffer: memoryview) -> int:
        direct = self._body.direct
        count = direct.read(buffer) if direct is not None else 0
        self._count += count
        return count

    async def readinto(self, buffer: memoryview) -> int:
        self._report()
        count = await self._body.readinto(buffer)
        self._count += count
        return count

    def _report(self) -> None:
        """Tell the suppliers what has come. Raises MirrorFailed if the body shall end."""
        now, count, self._count = self._clock(), self._count, 0
        self._suppliers.came(self.supplier, count, now)
        if self._suppliers.ends(self.supplier, now):
            news = self._suppliers.news(self.supplier)
            raise MirrorFailed(news or "another supplier takes over", mirror=self.supplier, notable=bool(news))


def _why(error: Exception) -> str:
    if isinstance(error, FetchError):
        return error.message
    return f"the connection broke: {(getattr(error, 'strerror', None) or type(error).__name__).lower()}"


def mirrored(source: Source, ref: ArtifactRef, settings: Settings, environ: Mapping[str, str]) -> Source:
    """Return `source` with the mirrors of `settings`; itself without any. Raises ConfigurationError."""
    if not settings.mirrors:
        return source
    secret = settings.mirror_secret_file
    mirrors = [
        Mirror(url, ref.key, read_secret(secret, url) if secret is not None and is_served(url) else None)
        for url in dict.fromkeys(settings.mirrors)
    ]
    transport = HttpTransport(
        connections=settings.max_concurrency,
        timeout_stall=min(STALL, settings.timeout_stall),
        read_buffer=READ_BUFFER,
        environ=environ,
        identity=Identity(settings.mirror_ca, settings.mirror_cert, settings.mirror_key),
    )
    if isinstance(source, Packed):
        return MirroredPackedSource(source, source, mirrors, transport)
    return MirroredSource(source, mirrors, transport)
