"""A pinned source serves what was resolved before, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest

from fetcher.artifact import ArtifactRef, ByteRange, Digest, Listing, RemoteFile, listing_digest
from fetcher.errors import OtherRevision
from fetcher.sources.base import Asking, Body, Packed, Packing, Remote, once
from fetcher.sources.pinned import pinned

WEIGHTS = RemoteFile("model.safetensors", 10, (Digest("sha256", "a" * 64),))
READ_ME = RemoteFile("README.md", 2)
REF = ArtifactRef("s3://bucket/m", include=("*.safetensors",))


class Store(Remote):
    """A source that lists without digests, and describes with them, as object stores do."""

    def __init__(self, revision: str | None = "r1", weights: RemoteFile = WEIGHTS) -> None:
        self.revision = revision
        self.weights = weights

    async def resolve(self, ask: Asking = once) -> str | None:
        return self.revision

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        return Listing(revision, (replace(self.weights, digests=()), READ_ME))

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return [self.weights if file.path == self.weights.path else file for file in files]

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        raise AssertionError(f"{file.path} is not to be fetched")

    async def aclose(self) -> None:
        """Nothing to close."""


class PackedStore(Store):
    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        return Packing(("layer.tar",))


async def fetched(store: Store, digest: str, revision: str | None = "r1") -> None:
    """Ask as the engine does, up to the first byte."""
    source = pinned(store, REF, revision, digest)
    listing = await source.list(await source.resolve())
    await source.describe([file for file in listing.files if file.path.endswith(".safetensors")])


class TestListing:
    async def test_the_listing_of_the_selected_files_is_accepted(self) -> None:
        await fetched(Store(), listing_digest([replace(WEIGHTS, digests=())]))

    async def test_so_is_their_description(self) -> None:
        await fetched(Store(), listing_digest([WEIGHTS]))

    async def test_another_one_is_refused(self) -> None:
        with pytest.raises(OtherRevision, match="lists other files"):
            await fetched(Store(weights=replace(WEIGHTS, size=11)), listing_digest([WEIGHTS]))

    async def test_nothing_is_compared_without_a_digest(self) -> None:
        await fetched(Store(), "")


class TestRevision:
    async def test_another_revision_is_refused_and_remembered(self) -> None:
        source = pinned(Store("r2"), REF, "r1", "")
        with pytest.raises(OtherRevision, match="at r2 instead of r1"):
            await source.resolve()
        assert isinstance(source.problem, OtherRevision)

    async def test_a_source_without_revisions_has_none(self) -> None:
        await fetched(Store(None), "", None)
        with pytest.raises(OtherRevision):
            await fetched(Store(None), "")


async def test_archives_stay_archives() -> None:
    source = pinned(PackedStore(), REF, "r1", "")
    assert isinstance(source, Packed)
    assert await source.packing("r1") == Packing(("layer.tar",))
    assert not isinstance(pinned(Store(), REF, "r1", ""), Packed)
