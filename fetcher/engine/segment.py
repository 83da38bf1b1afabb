"""A segment of one file of a source, as a source with one file. The pipeline fetches it like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.engine.portion import Portion
from fetcher.errors import ConfigurationError, RangesUnsupported
from fetcher.sources.base import Body, Capabilities, Source


class SegmentSource(Portion):
    """The bytes `part` of `file`, which has an identity, as the only file of a portion.

    The segment has no digest: the joined file is compared with those of the whole.
    """

    def __init__(self, source: Source, file: RemoteFile, part: ByteRange, listing: Listing) -> None:
        mark = f"{file.identity} [{part.start}, {part.stop})"
        super().__init__(source, replace(listing, files=(RemoteFile(file.path, len(part), validator=mark),)))
        self._file = file
        self._part = part

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def local_path(self, file: RemoteFile) -> Path | None:
        return None

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
