"""`oci://` on a real registry (Debian's docker-registry), with a front that can fail."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.sources.oci import OciAccess
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of
from fetcher.testing.faults import Faults
from tests.lab.command import run_fetcher
from tests.lab.front import Front, in_front_of
from tests.lab.registry import Registry, registry

ANONYMOUS = OciAccess()
MiB = 1024 * 1024
SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
RAW = "application/vnd.cncf.model.weight.v1.raw"
Push = Callable[[Registry, str, Mapping[str, bytes]], str]
FILES = {"config.json": b'{"model_type": "llama"}', "sub/model.safetensors": random_bytes("oci", 3 * MiB + 17)}
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def front(server: Registry) -> Iterator[Front]:
    with in_front_of(server.host, server.port) as running:
        yield running


@pytest.fixture
def repository() -> str:
    """The name of a new repository."""
    return f"org/model-{next(_NUMBERS)}"


def push_oras(server: Registry, repository: str, files: Mapping[str, bytes], tag: str = "v1") -> str:
    """Push files as ORAS does, and return the digest of the manifest."""
    kind = "application/vnd.oci.image.layer.v1.tar"  # the type that oras gives to any file
    layers = [(content, kind, {TITLE: path}) for path, content in files.items()]
    return str(server.push(repository, tag, layers, artifact_type="application/vnd.example")["digest"])


def push_modelpack(server: Registry, repository: str, files: Mapping[str, bytes], tag: str = "v1") -> str:
    layers = [(content, RAW, {FILEPATH: path}) for path, content in files.items()]
    config = "application/vnd.cncf.model.config.v1+json"
    return str(server.push(repository, tag, layers, config=config, artifact_type=MODELPACK)["digest"])


def source_of(uri: str, access: OciAccess | None = ANONYMOUS, environ: Mapping[str, str] | None = None) -> Source:
    return open_source(ArtifactRef(uri), SETTINGS, environ or {}, credentials=access)


def tree(directory: Path) -> dict[str, bytes]:
    """All files of an artifact except those of the fetcher."""
    paths = (path for path in directory.rglob("*") if path.is_file() and ".fetcher" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


class TestConformance(SourceConformance):
    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def make_source(self, front: Front, server: Registry, repository: str) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            push_oras(server, repository, files)
            return source_of(f"oci://127.0.0.1:{front.own_port}/{repository}:v1")

        return make

    @pytest.fixture
    def missing_source(self, front: Front) -> Source:
        return source_of(f"oci://127.0.0.1:{front.own_port}/org/nothing:v1")


@pytest.mark.parametrize("push", [push_oras, push_modelpack])
class TestRawLayers:
    """Layers that are files, fetched by ranges."""

    def test_an_artifact_becomes_a_directory(self, push: Push, server: Registry, repository: str, tmp_path: Path) -> None:
        digest = push(server, repository, FILES)
        done = run_fetcher(
            "fetch", f"oci://{server.place}/{repository}:v1", "--cache-dir", tmp_path, "--require-digests", "--json"
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (tree(Path(result["path"])), result["revision"]) == (FILES, digest)


async def test_every_file_has_its_sha256(server: Registry, repository: str) -> None:
    push_oras(server, repository, FILES)
    async with aclosing(source_of(f"oci://{server.place}/{repository}:v1")) as source:
        listed = {file.path: [str(each) for each in file.digests] for file in (await listing_of(source)).files}
    assert listed == {path: [f"sha256:{hashlib.sha256(content).hexdigest()}"] for path, content in FILES.items()}
