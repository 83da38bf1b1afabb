"""The conformance suite passes a correct source and fails incorrect ones."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fetcher.artifact import ByteRange, Digest, Listing, RemoteFile
from fetcher.errors import NotFound
from fetcher.sources.base import Asking, Body, Capabilities, Source, Unmirrored, once
from fetcher.testing.conformance import MakeSource, SourceConformance


class MemorySource(Unmirrored):
    """A source of files in a dictionary that others can change. `broken` names its defect."""

    def __init__(self, files: dict[str, bytes], broken: str | None = None) -> None:
        self._files = files
        self._broken = broken

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def resolve(self, ask: Asking = once) -> str | None:
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

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

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
        """The content that was published first: a Hub keeps old commits too."""
        return max(SourceConformance.files.values(), key=len)


class MemoryBody:
    def __init__(self, content: bytes) -> None:
        self._remaining = content

    direct = None

    async def readinto(self, buffer: memoryview) -> int:
        piece = self._remaining[: min(len(buffer), 10_000)]
        buffer[: len(piece)] = piece
        self._remaining = self._remaining[len(piece) :]
        return len(piece)


def maker(broken: str | None = None) -> MakeSource:
    published: dict[str, bytes] = {}

    def make(files: Mapping[str, bytes]) -> Source:
        published.clear()
        published.update(files)
        return MemorySource(published, broken)

    return make


class TestCorrectSource(SourceConformance):
    @pytest.fixture
    def make_source(self) -> MakeSource:
        return maker()

    @pytest.fixture
    def missing_source(self) -> Source:
        return MemorySource({})


class TestIncorrectSources:
    async def test_a_wrong_size_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_every_file_is_listed_once_with_its_size(maker("size"))

    async def test_a_revision_that_never_changes_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_changed_content_resolves_to_another_revision(maker("revision"))

    async def test_a_short_range_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_a_range_arrives_exactly(maker("length"), 0, 1000)

    async def test_changed_content_is_caught(self) -> None:
        with pytest.raises(AssertionError):
            await SourceConformance().test_changed_content_is_never_returned_for_a_listed_file(maker("change"))

    async def test_a_source_without_not_found_errors_is_caught(self) -> None:
        source = MemorySource({"unexpected": b""})
        with pytest.raises(pytest.fail.Exception):
            await SourceConformance().test_an_artifact_that_does_not_exist_is_not_found(source)
