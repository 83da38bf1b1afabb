"""Every source fulfils the contract of `sources.base`, alone and with mirrors in front: one suite runs for each of them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar

import pytest

from fetcher.artifact import ArtifactRef, ByteRange
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of, read
from fetcher.testing.faults import Faults
from fetcher.testing.origin import Origin
from fetcher.testing.repository import Repository
from tests.sources.mirrored import Mirrored, WithCache, WithPeer


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=["hf_conformance"], lfs_threshold=10_000, page_size=1) as running:
        yield running


def source_of(uri: str, *, endpoint: str | None = None, claims: Mapping[str, Path] | None = None) -> Source:
    environ = {**os.environ, **({"HF_ENDPOINT": endpoint} if endpoint else {})}
    settings = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0, pvc_mounts=claims or {})
    return open_source(ArtifactRef(uri), settings, environ)


class TestHub(SourceConformance):
    secret = "hf_conformance"

    @pytest.fixture(autouse=True)
    def token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_conformance")

    @pytest.fixture
    def faults(self, origin: Origin) -> Faults:
        return origin.faults

    @pytest.fixture
    def make_source(self, origin: Origin) -> MakeSource:
        published: list[Repository] = []

        def make(files: Mapping[str, bytes]) -> Source:
            if published:
                origin.update_repo(published[0], dict(files))
            else:
                published.append(origin.add_repo("org/model", dict(files)))
            return source_of("hf://org/model", endpoint=origin.endpoint)

        return make

    @pytest.fixture
    def missing_source(self, origin: Origin) -> Source:
        return source_of("hf://org/nothing", endpoint=origin.endpoint)


class TestHubWithPeer(WithPeer, TestHub): ...


class TestHubWithCache(WithCache, TestHub): ...


class TestWeb(SourceConformance):
    files: ClassVar[Mapping[str, bytes]] = {"model.bin": random_bytes("web", 300_000)}
    secret = "s3cr3t"

    @pytest.fixture
    def faults(self, origin: Origin) -> Faults:
        return origin.faults

    @pytest.fixture
    def make_source(self, origin: Origin) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            ((name, content),) = files.items()
            return source_of(origin.add_file(f"/{name}", content).replace("http://", "http://user:s3cr3t@"))

        return make

    @pytest.fixture
    def missing_source(self, origin: Origin) -> Source:
        return source_of(f"{origin.cdn_endpoint}/nothing.bin".replace("http://", "http://user:s3cr3t@"))


class TestWebWithMirrors(Mirrored, TestWeb):
    """Without a digest all bytes are the origin's."""


class TestPinnedWeb(SourceConformance):
    files: ClassVar[Mapping[str, bytes]] = {"model.bin": random_bytes("web", 300_000)}

    @pytest.fixture
    def faults(self, origin: Origin) -> Faults:
        return origin.faults

    @pytest.fixture
    def make_source(self, origin: Origin) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            ((name, content),) = files.items()
            return source_of(f"{origin.add_file(f'/{name}', content)}#sha256={hashlib.sha256(content).hexdigest()}")

        return make

    @pytest.fixture
    def missing_source(self, origin: Origin) -> Source:
        return source_of(f"{origin.cdn_endpoint}/nothing.bin#sha256={hashlib.sha256().hexdigest()}")

    async def test_changed_content_is_never_returned_for_a_listed_file(self, make: MakeSource) -> None:
        """Servers may differ in their validators: the digest of the whole file tells."""
        async with aclosing(make(self.files)) as source:
            file = self.file_in(await listing_of(source))
            async with aclosing(make(self.changed())):
                await read(source, file, ByteRange(1000, 2000))
        assert [digest.hex for digest in file.digests] == [hashlib.sha256(self.largest).hexdigest()]


class TestPinnedWebWithPeer(WithPeer, TestPinnedWeb): ...


class TestPinnedWebWithCache(WithCache, TestPinnedWeb): ...


class TestLocal(SourceConformance):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            publish(tmp_path / "model", files)
            return source_of(f"file://{tmp_path}/model")

        return make

    @pytest.fixture
    def missing_source(self, tmp_path: Path) -> Source:
        return source_of(str(tmp_path / "nothing"))


class TestClaim(SourceConformance):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            publish(tmp_path / "model", files)
            return source_of("pvc://weights/model", claims={"weights": tmp_path})

        return make

    @pytest.fixture
    def missing_source(self, tmp_path: Path) -> Source:
        return source_of("pvc://weights/nothing", claims={"weights": tmp_path})


def publish(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write exactly `files` to `directory`, in new inodes."""
    shutil.rmtree(directory, ignore_errors=True)
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
