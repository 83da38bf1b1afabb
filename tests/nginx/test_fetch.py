"""Fetches from Debian's nginx, a server that was not written for this project."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import xxhash

import fetcher
from fetcher.api import Options
from fetcher.errors import NotFound, Untrusted, UsageError
from fetcher.events import BytesReceived, Event, Retrying
from fetcher.settings import Settings
from fetcher.testing.checkpoint import random_bytes
from tests.lab.availability import missing
from tests.lab.command import run_fetcher
from tests.lab.fixtures import StartNginx
from tests.lab.nginx import Behaviour
from tests.lab.waiting import wait_until

MiB, GiB = 1 << 20, 1 << 30
MEMORY = Path("/dev") / "shm"
WEIGHTS = random_bytes("weights", 20 * MiB + 7)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    (path / "model.safetensors").write_bytes(WEIGHTS)
    return path


def content(done: subprocess.CompletedProcess[str]) -> bytes:
    """The content of the file that the command fetched."""
    assert done.returncode == 0, done.stderr
    return (Path(done.stdout.strip()) / "model.safetensors").read_bytes()


class TestMultipleGigabytes:
    @pytest.fixture
    def large(self) -> Iterator[Path]:
        """A file of 3 GiB and 12,345 bytes, mostly holes, so that it is made at once. It is in memory, where holes are free."""
        size = 3 * GiB + 12_345
        with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
            path = Path(name) / "model.gguf"
            with path.open("wb") as file:
                file.truncate(size)
                for number, position in enumerate(range(0, size - MiB, 61 * MiB + 4321)):
                    file.seek(position)
                    file.write(random_bytes(f"block {number}", 64 * 1024))
            yield path

    def test_a_file_of_three_gigabytes_is_fetched_in_ranges_without_a_wrong_bit(
        self, nginx: StartNginx, large: Path, tmp_path: Path
    ) -> None:
        if shutil.disk_usage(tmp_path).free < 8 * GiB:
            missing("disk of 8 GiB", "free some space for temporary files")
        server = nginx(large.parent)
        done = run_fetcher("fetch", f"{server.url}/model.gguf", "--cache-dir", tmp_path / "cache", "--json", timeout=110)
        assert done.returncode == 0, done.stderr
        artifact = json.loads(done.stdout)
        arrived = Path(artifact["path"]) / "model.gguf"
        assert (artifact["bytes"], artifact["bytes_fetched"]) == (large.stat().st_size,) * 2
        assert hashed(arrived) == hashed(large)
        assert len({line for line in server.requests() if " 206 " in line}) > 16, "in ranges"
        shutil.rmtree(tmp_path / "cache")


def hashed(path: Path) -> str:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(MiB))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


class TestTls:
    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
    def test_an_authority_named_by_the_users_variable_is_trusted(
        self, nginx: StartNginx, directory: Path, tmp_path: Path, authority_file: Path, variable: str
    ) -> None:
        url = f"{nginx(directory).tls_url}/model.safetensors"
        assert content(run_fetcher("fetch", url, "--cache-dir", tmp_path, env={variable: str(authority_file)})) == WEIGHTS

    def test_an_unknown_authority_is_refused_before_any_request(
        self, nginx: StartNginx, directory: Path, tmp_path: Path
    ) -> None:
        server = nginx(directory)
        done = run_fetcher("fetch", f"{server.tls_url}/model.safetensors", "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout) == (69, "")
        assert done.stderr.splitlines()[-1].startswith("Untrusted: ")
        assert "certificate verify failed" in done.stderr
        assert not server.requests()

    def test_a_missing_bundle_is_named(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        url = f"{nginx(directory).tls_url}/model.safetensors"
        done = run_fetcher("fetch", url, "--cache-dir", tmp_path, env={"SSL_CERT_FILE": "/nonexistent/ca.pem"})
        assert done.returncode == 78
        assert "/nonexistent/ca.pem" in done.stderr.splitlines()[-1]


class TestBehaviour:
    def test_a_server_without_ranges_sends_the_whole_file(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        server = nginx(directory, Behaviour(max_ranges=0))
        done = run_fetcher("fetch", f"{server.url}/model.safetensors", "--cache-dir", tmp_path)
        assert content(done) == WEIGHTS
        assert all(" 200 " in line for line in server.requests())

    def test_a_redirect_to_another_port_is_followed(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        target = nginx(directory)
        url = f"{nginx(directory, Behaviour(redirect_to=target.url)).url}/model.safetensors"
        assert content(run_fetcher("fetch", url, "--cache-dir", tmp_path)) == WEIGHTS
        assert target.requests()

    def test_a_redirect_from_https_to_http_is_refused(
        self, nginx: StartNginx, directory: Path, tmp_path: Path, authority_file: Path
    ) -> None:
        target = nginx(directory)
        url = f"{nginx(directory, Behaviour(redirect_to=target.url)).tls_url}/model.safetensors"
        done = run_fetcher("fetch", url, "--cache-dir", tmp_path, env={"SSL_CERT_FILE": str(authority_file)})
        assert done.returncode == 69
        assert done.stderr.splitlines()[-1].startswith("Untrusted: ")
        assert not target.requests()

    def test_a_rate_limited_download_succeeds(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        server = nginx(directory, Behaviour(limit_rate=16 * MiB))
        assert content(run_fetcher("fetch", f"{server.url}/model.safetensors", "--cache-dir", tmp_path)) == WEIGHTS

    async def test_an_unavailable_server_is_retried_after_the_wait_it_asks_for(
        self, nginx: StartNginx, directory: Path, tmp_path: Path
    ) -> None:
        """The server becomes available again at the same address, as after a restart."""
        server = nginx(directory, Behaviour(unavailable_for=1))
        configuration = server.workspace / "nginx.conf"
        retries: list[Retrying] = []

        def recover(event: Event) -> None:
            if isinstance(event, Retrying):
                retries.append(event)
                text = configuration.read_text()
                configuration.write_text(text.replace("return 503;", "").replace("add_header Retry-After 1 always;", ""))
                subprocess.run(["kill", "-HUP", (server.workspace / "pid").read_text().strip()], check=True)

        artifact = await fetcher.fetch_async(f"{server.url}/model.safetensors", cache_dir=tmp_path / "c", on_event=recover)
        assert (artifact.path / "model.safetensors").read_bytes() == WEIGHTS
        assert retries[0].delay >= 1.0

    def test_a_missing_file_is_not_found(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        done = run_fetcher("fetch", f"{nginx(directory).url}/absent", "--cache-dir", tmp_path)
        assert done.returncode == 66
        assert done.stderr.splitlines()[-1].startswith("NotFound: ")

    def test_a_second_fetch_sends_no_request_and_a_refresh_sends_one(
        self, nginx: StartNginx, directory: Path, tmp_path: Path
    ) -> None:
        server = nginx(directory)
        words = ("fetch", f"{server.url}/model.safetensors", "--cache-dir", tmp_path)
        run_fetcher(*words)
        before = len(server.requests())
        assert content(run_fetcher(*words)) == WEIGHTS
        assert len(server.requests()) == before
        assert content(run_fetcher(*words, "--refresh", "on-change")) == WEIGHTS
        wait_until(lambda: len(server.requests()) > before, "the refresh is logged")
        assert len(server.requests()) == before + 1


class TestPython:
    def test_fetch_returns_the_artifact(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        url = f"{nginx(directory).url}/model.safetensors"
        events: list[Event] = []
        artifact = fetcher.fetch(url, cache_dir=tmp_path, on_event=events.append)
        assert (artifact.path / "model.safetensors").read_bytes() == WEIGHTS
        assert (artifact.files, artifact.bytes, artifact.cached) == (1, len(WEIGHTS), False)
        assert sum(event.bytes for event in events if isinstance(event, BytesReceived)) == len(WEIGHTS)

    def test_a_cache_hit_emits_its_events(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        url = f"{nginx(directory).url}/model.safetensors"
        fetcher.fetch(url, cache_dir=tmp_path)
        events: list[Event] = []
        assert fetcher.fetch(url, cache_dir=tmp_path, on_event=events.append).cached
        assert [type(event).__name__ for event in events] == ["Finished"]

    async def test_fetch_async_runs_on_the_callers_event_loop(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        url = f"{nginx(directory).url}/model.safetensors"
        one, two = await asyncio.gather(
            fetcher.fetch_async(url, dest=tmp_path / "one"),
            fetcher.fetch_async(url, dest=str(tmp_path / "two"), max_concurrency=1),
        )
        for artifact in (one, two):
            assert (artifact.path / "model.safetensors").read_bytes() == WEIGHTS

    async def test_fetch_in_a_running_event_loop_recommends_fetch_async(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"inside a running event loop; await fetcher\.fetch_async"):
            fetcher.fetch("hf://org/model", cache_dir=tmp_path)

    def test_fetch_accepts_every_setting(self) -> None:
        assert {field.name for field in dataclasses.fields(Settings)} <= set(Options.__annotations__)

    def test_an_unknown_setting_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="max_conections"):
            fetcher.fetch("hf://org/model", cache_dir=tmp_path, max_conections=3)  # type: ignore[call-arg]

    def test_every_error_is_a_fetch_error(self, nginx: StartNginx, directory: Path, tmp_path: Path) -> None:
        with pytest.raises(fetcher.FetchError) as caught:
            fetcher.fetch(f"{nginx(directory).url}/absent", cache_dir=tmp_path)
        assert type(caught.value) is NotFound

    def test_trusted_authorities_come_from_the_environment(
        self, nginx: StartNginx, directory: Path, tmp_path: Path, authority_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = f"{nginx(directory).tls_url}/model.safetensors"
        with pytest.raises(Untrusted):
            fetcher.fetch(url, cache_dir=tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", os.fspath(authority_file))
        assert (fetcher.fetch(url, cache_dir=tmp_path).path / "model.safetensors").read_bytes() == WEIGHTS
