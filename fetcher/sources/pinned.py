"""A source that serves one revision, and one listing if that is known too, or nothing: what was resolved before."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.artifact import ArtifactRef, Listing, RemoteFile, listing_digest
from fetcher.errors import OtherRevision, SourceError
from fetcher.planning.selection import selects
from fetcher.sources.base import Asking, Derived, Packed, Packing, Source, once


class PinnedSource(Derived):
    """The files of `ref` at `source`, if they are those of `revision` and `digest` (empty: not compared).

    `problem` is the last failure to learn the revision: a fetch that keeps an existing copy only warns of it.
    """

    def __init__(self, source: Source, ref: ArtifactRef, revision: str | None, digest: str) -> None:
        super().__init__(source)
        self._ref = ref
        self._revision = revision
        self._digest = digest
        self._listed = False
        self.problem: SourceError | None = None

    async def resolve(self, ask: Asking = once) -> str | None:
        """Return the wanted revision. Raises OtherRevision if the source has another one, SourceError."""
        self.problem = None
        try:
            found = await self._source.resolve(ask)
            if found != self._revision:
                raise OtherRevision(
                    f"the source is at {found or 'no revision'} instead of {self._revision or 'no revision'}; "
                    "resolve it again; a controller does that by itself"
                )
        except SourceError as error:
            self.problem = error
            raise
        return found

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        listing = await self._source.list(revision, ask)
        chosen = [file for file in listing.files if selects(file.path, include=self._ref.include, exclude=self._ref.exclude)]
        self._listed = self._fits(chosen)
        return listing

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        """Describe the files. Raises OtherRevision if neither the listing nor its description is what the controller saw."""
        described = await self._source.describe(files, ask)
        if not self._listed and not self._fits(described):
            raise OtherRevision(
                f"the source lists other files or digests than at {self._revision or 'first'}; resolve it again; a controller "
                "does that by itself"
            )
        return described

    def _fits(self, files: Sequence[RemoteFile]) -> bool:
        return not self._digest or listing_digest(files) == self._digest


class PinnedPackedSource(PinnedSource):
    """The same for a source whose listed files can be archives."""

    def __init__(self, source: Source, packed: Packed, ref: ArtifactRef, revision: str | None, digest: str) -> None:
        super().__init__(source, ref, revision, digest)
        self._packed = packed

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        return await self._packed.packing(revision, ask)


def pinned(source: Source, ref: ArtifactRef, revision: str | None, digest: str) -> PinnedSource:
    """Return `source` at `revision`, with the listing of `digest`."""
    if isinstance(source, Packed):
        return PinnedPackedSource(source, source, ref, revision, digest)
    return PinnedSource(source, ref, revision, digest)
