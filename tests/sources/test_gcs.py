"""The source `gs://` against fake-gcs-server, a server with checksums and generations."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance
from fetcher.testing.faults import Faults
from tests.lab.command import run_fetcher
from tests.lab.front import Front, in_front_of
from tests.lab.stores import GcsServer
from tests.sources.mirrored import Mirrored

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": random_bytes("gcs", 300_000),
    "nested/tokenizer.json": b"{}",
}


@pytest.fixture
def bucket(gcs: GcsServer) -> str:
    name = f"models-{uuid.uuid4().hex[:12]}"
    gcs.make_bucket(name)
    return name


def source_of(server: GcsServer | Front, uri: str) -> Source:
    return open_source(ArtifactRef(uri), SETTINGS, {"STORAGE_EMULATOR_HOST": server.endpoint})


class TestGcs(SourceConformance):
    """Behind a front that can fail."""

    @pytest.fixture
    def front(self, gcs: GcsServer) -> Iterator[Front]:
        with in_front_of("127.0.0.1", gcs.port) as running:
            yield running

    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def make_source(self, gcs: GcsServer, front: Front, bucket: str) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            gcs.publish(bucket, {f"org/model/{path}": content for path, content in files.items()})
            return source_of(front, f"gs://{bucket}/org/model")

        return make

    @pytest.fixture
    def missing_source(self, front: Front, bucket: str) -> Source:
        return source_of(front, f"gs://{bucket}/nothing")


class TestGcsWithMirrors(Mirrored, TestGcs):
    """A CRC is no digest: all bytes are the origin's."""


class TestFetching:
    """The command, as users run it."""

    @pytest.fixture
    def env(self, gcs: GcsServer, bucket: str) -> dict[str, str]:
        gcs.publish(bucket, {f"m/{path}": content for path, content in FILES.items()} | {"m-old/config.json": b"old"})
        return {"STORAGE_EMULATOR_HOST": gcs.endpoint}

    def test_a_prefix_is_fetched_and_verified(self, env: dict[str, str], bucket: str, tmp_path: Path) -> None:
        """A prefix ends at a slash: the neighbour `m-old/` is not fetched."""
        done = run_fetcher("fetch", f"gs://{bucket}/m", "--cache-dir", tmp_path, "--require-checksums", env=env)
        assert done.returncode == 0, done.stderr
        placed = Path(done.stdout.strip())
        found = {str(path.relative_to(placed)): path.read_bytes() for path in placed.rglob("*") if path.is_file()}
        assert {path: content for path, content in found.items() if not path.startswith(".fetcher")} == FILES
        assert run_fetcher("verify", f"gs://{bucket}/m", "--cache-dir", tmp_path, "--full").returncode == 0

    def test_one_object_is_a_file(self, env: dict[str, str], bucket: str, tmp_path: Path) -> None:
        done = run_fetcher("fetch", f"gs://{bucket}/m/config.json", "--dest", tmp_path / "model", env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "model" / "config.json").read_bytes() == FILES["config.json"]

    def test_a_plan_lists_what_would_be_fetched(self, env: dict[str, str], bucket: str, tmp_path: Path) -> None:
        done = run_fetcher("plan", f"gs://{bucket}/m", "--exclude", "nested/*", "--cache-dir", tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert "model.safetensors" in done.stdout
        assert [line for line in done.stdout.splitlines() if "tokenizer.json" in line and not line.startswith("fetch")]

    def test_a_changed_object_is_fetched_on_refresh(
        self, env: dict[str, str], gcs: GcsServer, bucket: str, tmp_path: Path
    ) -> None:
        words = ("fetch", f"gs://{bucket}/m", "--dest", tmp_path / "model", "--refresh", "on-change")
        assert run_fetcher(*words, env=env).returncode == 0
        gcs.put(bucket, "m/config.json", b"{}")
        done = run_fetcher(*words, env=env)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "model" / "config.json").read_bytes() == b"{}"

    def test_what_is_not_there_is_not_found(self, env: dict[str, str], bucket: str, tmp_path: Path) -> None:
        done = run_fetcher("fetch", f"gs://{bucket}/absent", "--cache-dir", tmp_path, env=env)
        assert (done.returncode, done.stderr.splitlines()[-1].partition(":")[0]) == (66, "NotFound")
