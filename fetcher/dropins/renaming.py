"""A source that renames the files of another source: servers expect other paths than the published ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.events import Subscriber
from fetcher.sources.base import Asking, Body, Derived, Guide, Source, once

Naming = Callable[[tuple[RemoteFile, ...]], Mapping[str, str]]
"""Maps the new path of each selected file to its published path, given all published files. Raises SourceError."""


class RenamingSource(Derived):
    """The files of `source` that `naming` selects, under their new paths."""

    def __init__(self, source: Source, naming: Naming) -> None:
        super().__init__(source)
        self._naming = naming
        self._published: dict[str, str] = {}

    def local_path(self, file: RemoteFile) -> Path | None:
        return self._source.local_path(self._as_published(file))

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._source.open(self._as_published(file), byte_range)

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        listing = await self._source.list(revision, ask)
        self._published = dict(self._naming(listing.files))
        files = {file.path: file for file in listing.files}
        renamed = (replace(files[published], path=path) for path, published in self._published.items())
        return replace(listing, files=tuple(renamed))

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        described = await self._source.describe([self._as_published(file) for file in files], ask)
        return [replace(each, path=file.path) for each, file in zip(described, files, strict=True)]

    def address(self, file: RemoteFile) -> str | None:
        return self._source.address(self._as_published(file))

    def mirrors(self, file: RemoteFile) -> Sequence[str]:
        return self._source.mirrors(self._as_published(file))

    def disputed(self, file: RemoteFile, suspects: Collection[str]) -> None:
        self._source.disputed(self._as_published(file), suspects)

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        """Nobody has a listing with the new names: only fetches into a directory rename, and those are not served. Peers below
        know the published names, and all files of a listing, of which this takes some. Caches help, by `mirrors`."""
        return None

    def judged(self, file: RemoteFile, suppliers: Collection[str], liars: Collection[str]) -> None:
        self._source.judged(self._as_published(file), suppliers, liars)

    def _as_published(self, file: RemoteFile) -> RemoteFile:
        return replace(file, path=self._published[file.path])
