"""A part of a source: some files of a listing that is fixed. The pipeline fetches it like any other source."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.sources.base import Asking, Body, Capabilities, Source, once


class Portion:
    """The files `listing` of `source`. Closing it leaves the source open."""

    def __init__(self, source: Source, listing: Listing) -> None:
        self._source = source
        self._listing = listing

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    async def resolve(self, ask: Asking = once) -> str | None:
        return self._listing.revision

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        return self._listing

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._source.open(file, byte_range)

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._source.local_path(file)

    async def aclose(self) -> None:
        """Nothing to close: the source belongs to the whole fetch."""
