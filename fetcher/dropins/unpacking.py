"""A source of one published archive. The engine fetches and unpacks it, as it does with the layers of an image."""

from __future__ import annotations

from fetcher.artifact import Listing
from fetcher.errors import NotFound
from fetcher.sources.base import Asking, Derived, Packing, Source, once


class ArchiveSource(Derived):
    """The archive that is the only file of `source`. `name`: its address for messages."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(source)
        self._name = name
        self._listing: Listing | None = None

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        self._listing = await self._source.list(revision, ask)
        return self._listing

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        """The archive. Raises NotFound if there is not exactly one file."""
        listing = self._listing or await self.list(revision, ask)
        if len(listing.files) != 1:
            raise NotFound(f"{self._name} is not one archive: the source has {len(listing.files)} files there")
        return Packing((listing.files[0].path,))
