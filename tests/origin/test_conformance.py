"""The conformance suite passes a right source and catches wrong ones."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fetcher.artifact import ByteRange, Digest, Listing, RemoteFile
from fetcher.errors import NotFound
from fetcher.sources.base import Asking, Body, Capabilities, Source, once
from fetcher.testing.conformance import MakeSource, SourceConformance


class MemorySource:
    """Files in a dictionary that others may change. `broken` names what it does wrong."""

    def __init__(self, files: dict[str, bytes], broken: str | None = None) -> None:
        self._files = files
        self._broken = broken

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def resolve(self) -> str | None:
        if not self._files:
            raise NotFound("nothing is published here")
        text = repr(sorted(self._files.items())) if self._broken != "revision" else ""
        return hashlib.sha256(text.encode()).hexdigest()

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        extra = int(self._broken == "size")
        files = (
            RemoteFile(path, len(content) + extra, (Digest("sha256", hashlib.sha256(content).hexdigest()),))
            for path, content in self._files.items()
        )
        return Listing(revision, tuple(files))

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        content = self._files[file.path]
        if hashlib.sha256(content).hexdigest() != file.digests[0].hex:
            content = bytes(len(content)) if self._broken == "change" else self._former
        part = content if byte_range is None else content[byte_range.start : byte_range.stop]
        yield MemoryBody(part[: len(part) - int(self._broken == "length")])

    def local_path(self, file: RemoteFile) -> Path | None:
        return None

    async def aclose(self) -> None:
        pass

    @property
    def _former(self) -> bytes:
        """It remembers what it published first, as a Hub remembers commits."""
        return max(SourceConformance.files.values(), key=len)


class MemoryBody:
    def __init__(self, content: bytes) -> None:
        self._left = content

    direct = None

    async def readinto(self, buffer: memoryview) -> int:
        piece = self._left[: min(len(buffer), 10_000)]
        buffer[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)


def maker(broken: str | None = None) -> MakeSource:
    published: dict[str, bytes] = {}

    def make(files: Mapping[str, bytes]) -> Source:
        published.clear()
        published.update(files)
        return MemorySource(published, broken)

    return make


class TestRightSource(SourceConformance):
    @pytest.fixture
    def make_source(self) -> MakeSource:
        return maker()

    @pytest.fixture
    def missing_source(self) -> Source:
        return MemorySource({})


class TestWrongSources:
    async def test_a_wrong_size_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_every_file_is_listed_once_with_its_size(maker("size"))

    async def test_a_revision_that_never_changes_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_changed_content_resolves_to_another_revision(maker("revision"))

    async def test_a_short_range_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_a_range_arrives_exactly(maker("length"), 0, 1000)

    async def test_other_content_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_other_content_never_passes_for_what_was_listed(maker("change"))

    async def test_a_source_that_finds_everything_is_caught(self) -> None:
        source = MemorySource({"unexpected": b""})
        with pytest.raises(pytest.fail.Exception):
            await SourceConformance().test_an_artifact_that_does_not_exist_is_not_found(source)
