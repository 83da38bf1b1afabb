"""Checksums that a store publishes: computed while the file is written, compared before it is visible, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef, Checksum, RemoteFile
from fetcher.engine import Artifact
from fetcher.engine import fetch as engine_fetch
from fetcher.errors import DigestMismatch, DigestUnavailable, Unreachable
from fetcher.events import Event, Mismatched, Rechecked
from fetcher.integrity import crc
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Part, Settings
from fetcher.sources import open_source
from fetcher.sources.base import Asking, Derived, Source, once
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import FlipBit, IgnoreRange, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Reset
from fetcher.testing.origin import Origin
from tests.engine.conftest import contents
from tests.lab.checksums import published, require_crcs

MiB = 1024 * 1024
CONTENT = random_bytes("published", 2 * CHUNK_SIZE + 5 * MiB + 7)
PARTS = (5 * MiB, 9 * MiB, len(CONTENT) - 14 * MiB)
"""Parts that begin and end inside chunks, and one that spans two borders of chunks."""


@pytest.fixture(autouse=True)
def the_extension_is_here() -> None:
    require_crcs()


EVERY = [published(each, CONTENT, parts) for each in ("crc64nvme", "crc32c", "crc32", "md5") for parts in ((), PARTS)]


class Store(Derived):
    """A source whose files have `checksums`, by path."""

    def __init__(self, source: Source, checksums: Mapping[str, Sequence[Checksum]]) -> None:
        super().__init__(source)
        self._checksums = checksums

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        described = await super().describe(files, ask)
        return [replace(file, checksums=tuple(self._checksums.get(file.path, ()))) for file in described]


class Fetch:
    """Fetches one address through a store that publishes `checksums` of it, and keeps the events."""

    def __init__(self, cache_dir: Path, uri: str) -> None:
        self.cache_dir = cache_dir
        self.uri = uri
        self.events: list[Event] = []

    async def __call__(self, *checksums: Checksum, path: str = "model.bin", **options: Any) -> Artifact:
        options.setdefault("cache_dir", self.cache_dir)
        options.setdefault("retry_for", 5.0)
        options.setdefault("max_concurrency", 4)
        settings = Settings(**options)
        source = Store(open_source(ArtifactRef(self.uri), settings), {path: checksums})
        return await engine_fetch(ArtifactRef(self.uri), settings, self.events.append, source=source)

    def count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)


@pytest.fixture
def fetch(origin: Origin, tmp_path: Path) -> Fetch:
    return Fetch(tmp_path / "cache", origin.add_file("/model.bin", CONTENT))


def recorded(artifact: Artifact) -> tuple[str, ...]:
    manifest = Manifest.read(artifact.path / RELATIVE_PATH)
    assert manifest is not None
    return manifest.files[0].checksums


@pytest.mark.parametrize("checksum", EVERY, ids=str)
class TestEachKind:
    async def test_it_is_compared_and_recorded(self, fetch: Fetch, checksum: Checksum) -> None:
        artifact = await fetch(checksum)
        assert contents(artifact.path) == {"model.bin": CONTENT}
        assert (artifact.verified, artifact.verified_by) == (False, {checksum.algorithm: 1})
        assert recorded(artifact) == (str(checksum),)
        again = await fetch(checksum)
        assert (again.cached, again.verified_by) == (True, artifact.verified_by)

    async def test_a_bit_that_was_flipped_on_the_way_is_fetched_again(
        self, origin: Origin, fetch: Fetch, checksum: Checksum
    ) -> None:
        origin.faults.add(Fault(FlipBit(77), path="model.bin", method="GET", times=1))
        artifact = await fetch(checksum)
        assert (contents(artifact.path), fetch.count(Mismatched)) == ({"model.bin": CONTENT}, 1)

    async def test_content_that_stays_wrong_is_never_visible(self, origin: Origin, fetch: Fetch, checksum: Checksum) -> None:
        origin.faults.add(Fault(FlipBit(len(CONTENT) - 1), path="model.bin"))
        with pytest.raises(DigestMismatch, match=f"expected {checksum}, but.* the checksum that the store publishes") as caught:
            await fetch(checksum)
        assert (caught.value.expected, fetch.count(Mismatched)) == (str(checksum), 2)
        assert not list(fetch.cache_dir.glob("*/model.bin"))

    async def test_what_an_earlier_attempt_received_counts_too(self, origin: Origin, fetch: Fetch, checksum: Checksum) -> None:
        fault = origin.faults.add(Fault(Reset(20 * MiB), path="model.bin", method="GET", times=1))
        down = origin.faults.add(Fault(Status(503), path="model.bin", method="GET"))
        with pytest.raises(Unreachable):
            await fetch(checksum, retry_for=0.5, max_concurrency=1)
        origin.faults.remove(fault)
        origin.faults.remove(down)
        artifact = await fetch(checksum)
        assert fetch.count(Rechecked) == 1
        assert 0 < artifact.bytes_fetched < len(CONTENT)
        assert (contents(artifact.path), recorded(artifact)) == ({"model.bin": CONTENT}, (str(checksum),))
        assert fetch.count(Mismatched) == 0


class TestSeveral:
    async def test_every_published_checksum_is_compared(self, fetch: Fetch) -> None:
        artifact = await fetch(*EVERY)
        assert (artifact.verified_by, recorded(artifact)) == ({"md5": 1}, tuple(map(str, EVERY)))
        wrong = replace(EVERY[1], hex="0" * 16)
        with pytest.raises(DigestMismatch, match=str(wrong)):
            await fetch(EVERY[0], wrong, *EVERY[2:], dest=fetch.cache_dir.parent / "other")

    async def test_a_source_that_sends_only_whole_files(self, origin: Origin, fetch: Fetch) -> None:
        origin.faults.add(Fault(IgnoreRange(), path="model.bin"))
        assert recorded(await fetch(*EVERY)) == tuple(map(str, EVERY))

    async def test_without_a_checksum_only_the_size_is_compared_and_the_result_says_so(self, fetch: Fetch) -> None:
        artifact = await fetch()
        assert (artifact.verified, artifact.verified_by, recorded(artifact)) == (False, {"size": 1}, ())

    async def test_parts_that_do_not_make_up_the_file_are_not_compared(self, fetch: Fetch) -> None:
        assert (await fetch(Checksum("crc32", "0" * 8, (1, 2)))).verified_by == {"size": 1}

    async def test_without_the_extension_a_crc_is_not_compared(self, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crc, "_crc", None)
        assert (await fetch(Checksum("crc64nvme", "0" * 16))).verified_by == {"size": 1}
        with pytest.raises(DigestUnavailable, match="no checksum that can be computed here"):
            await fetch(Checksum("crc64nvme", "0" * 16), require_checksums=True)

    async def test_an_empty_file(self, origin: Origin, tmp_path: Path) -> None:
        fetch = Fetch(tmp_path, origin.add_file("/empty.bin", b""))
        checksums = [published(each, b"") for each in ("crc64nvme", "crc32c", "crc32", "md5")]
        assert recorded(await fetch(*checksums, path="empty.bin")) == tuple(map(str, checksums))


class TestBytesThatWereNotReceived:
    """Chunks that come by clone, copy or join are read for their CRCs at the end."""

    async def test_a_local_directory(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "model.bin").write_bytes(CONTENT)
        fetch = Fetch(tmp_path / "cache", str(source))
        assert recorded(await fetch(*EVERY, hard_link=True)) == tuple(map(str, EVERY))
        with pytest.raises(DigestMismatch):
            await fetch(Checksum("crc32c", "0" * 8), hard_link=True, dest=tmp_path / "other")

    async def test_a_file_that_several_parts_fetched(self, fetch: Fetch) -> None:
        artifacts = await asyncio.gather(*(fetch(*EVERY, part=Part(index, 2)) for index in range(2)))
        assert [recorded(artifact) for artifact in artifacts] == [tuple(map(str, EVERY))] * 2


class TestRequired:
    async def test_a_checksum_is_enough_for_require_checksums_but_not_for_require_digests(self, fetch: Fetch) -> None:
        assert (await fetch(EVERY[0], require_checksums=True)).verified_by == {"crc64nvme": 1}
        with pytest.raises(DigestUnavailable, match="--require-digests is set"):
            await fetch(EVERY[0], require_digests=True)

    async def test_a_file_without_any_is_refused_before_it_is_fetched(self, origin: Origin, fetch: Fetch) -> None:
        with pytest.raises(DigestUnavailable, match=r"model\.bin: --require-checksums is set"):
            await fetch(require_checksums=True)
        assert len(origin.requests) == 1  # that of the listing

    async def test_an_artifact_that_was_verified_by_less_is_no_hit(self, fetch: Fetch) -> None:
        await fetch()
        with pytest.raises(DigestUnavailable):
            await fetch(require_checksums=True)
        artifact = await fetch(EVERY[0], require_checksums=True)
        assert (artifact.cached, artifact.verified_by) == (False, {"crc64nvme": 1})
        assert (await fetch(EVERY[0], require_checksums=True)).cached
