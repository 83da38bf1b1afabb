"""A part of a source: some files of a listing that is fixed. The pipeline fetches it like any other source."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.artifact import Listing, RemoteFile
from fetcher.events import Subscriber
from fetcher.sources.base import Asking, Derived, Guide, Source, once


class Portion(Derived):
    """The files `listing` of `source`, which are described already. Closing it leaves the source open."""

    def __init__(self, source: Source, listing: Listing) -> None:
        super().__init__(source)
        self._listing = listing

    async def resolve(self, ask: Asking = once) -> str | None:
        return self._listing.revision

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        return self._listing

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

    def begin(
        self, files: Sequence[RemoteFile], *, listing: str | None, node: str | None, on_event: Subscriber
    ) -> Guide | None:
        """The source knows of the whole fetch, and its chunks are not those of a segment."""
        return None

    async def aclose(self) -> None:
        """Nothing to close: the source belongs to the whole fetch."""
