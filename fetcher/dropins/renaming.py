"""Files of another source under names of one's own: an address says where a file is published, a server where it wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.sources.base import Asking, Body, Capabilities, Source, once

Naming = Callable[[tuple[RemoteFile, ...]], Mapping[str, str]]
"""From all that is published to the path here → the path there of what is wanted. Raises SourceError."""


class RenamingSource:
    """What `naming` wants of `source`, and nothing else."""

    def __init__(self, source: Source, naming: Naming) -> None:
        self._source = source
        self._naming = naming
        self._published: dict[str, str] = {}

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._source.local_path(self._as_published(file))

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._source.open(self._as_published(file), byte_range)

    async def resolve(self) -> str | None:
        return await self._source.resolve()

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        listing = await self._source.list(revision, ask)
        self._published = dict(self._naming(listing.files))
        files = {file.path: file for file in listing.files}
        wanted = (replace(files[published], path=here) for here, published in self._published.items())
        return replace(listing, files=tuple(wanted))

    async def aclose(self) -> None:
        await self._source.aclose()

    def _as_published(self, file: RemoteFile) -> RemoteFile:
        return replace(file, path=self._published[file.path])
