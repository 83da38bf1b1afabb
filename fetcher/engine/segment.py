"""A segment of one file of a source, as a source with one file. The pipeline fetches it like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.errors import ConfigurationError, RangesUnsupported
from fetcher.sources.base import Asking, Body, Capabilities, Source, once


class SegmentSource:
    """The bytes `part` of `file`, which has an identity. Closing it leaves `source` open.

    The segment has no digest: the joined file is compared with those of the whole.
    """

    def __init__(self, source: Source, file: RemoteFile, part: ByteRange, listing: Listing) -> None:
        self._source = source
        self._file = file
        self._part = part
        mark = f"{file.identity} [{part.start}, {part.stop})"
        self._listing = Listing(
            listing.revision, (RemoteFile(file.path, len(part), validator=mark),), authenticated=listing.authenticated
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def resolve(self, ask: Asking = once) -> str | None:
        return self._listing.revision

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        return self._listing

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        """Open the bytes of the whole file at the place of the segment.

        Raises ConfigurationError if the source cannot send parts: every segment would fetch the whole file.
        """
        wanted = byte_range or ByteRange(0, len(self._part))
        try:
            async with self._source.open(
                self._file, ByteRange(self._part.start + wanted.start, self._part.start + wanted.stop)
            ) as body:
                yield body
        except RangesUnsupported as error:
            raise ConfigurationError(
                f"{file.path} cannot be fetched in parts: {error.message}; fetch without --part", path=file.path
            ) from error

    def local_path(self, file: RemoteFile) -> Path | None:
        return None

    async def aclose(self) -> None:
        """Nothing to close: the source belongs to the whole fetch."""
