"""No token, password or signature is written anywhere: not to the streams, not to staging, not to the artifact."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, SLOW_WEIGHTS, MiB
from tests.lab.command import run_fetcher
from tests.lab.fixtures import StartFetcher
from tests.lab.waiting import wait_until

TOKEN = "hf_t0kenthatnobodymaysee"
URI = "hf://org/private"


@pytest.fixture
def secrets(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The token of a private repository whose weights are behind signed URLs."""
    origin.add_repo("org/private", {**FILES, "model.safetensors": SLOW_WEIGHTS}, private=True, readers=[TOKEN])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return [TOKEN]


def everything_written(tmp_path: Path, *texts: str) -> str:
    """Return `texts`, and the name and content of every file below `tmp_path`."""
    paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    return "\n".join([*texts, *map(str, paths), *(path.read_bytes().decode("latin-1") for path in paths)])


def signatures(origin: Origin) -> set[str]:
    """Return the signatures of all signed URLs that were requested."""
    return {request.query["Signature"] for request in origin.requests if "Signature" in request.query}


def test_a_successful_fetch_writes_no_secret(origin: Origin, secrets: list[str], tmp_path: Path) -> None:
    words = ("--cache-dir", tmp_path / "cache", "--termination-log", tmp_path / "log", "--progress", "json", "--json")
    done = run_fetcher("fetch", URI, *words)
    assert done.returncode == 0, done.stderr
    used = signatures(origin)
    assert used
    text = everything_written(tmp_path, done.stdout, done.stderr)
    assert "manifest.json" in text
    assert not [secret for secret in [*secrets, *used] if secret in text]


def test_a_fetch_whose_signed_urls_fail_writes_no_secret(origin: Origin, secrets: list[str], tmp_path: Path) -> None:
    origin.faults.add(Fault(Status(500), origin="cdn"))
    words = ("--cache-dir", tmp_path / "cache", "--termination-log", tmp_path / "log", "--retry-for", "1")
    done = run_fetcher("fetch", URI, *words, "--progress", "log")
    assert done.returncode == 69, done.stderr
    used = signatures(origin)
    assert used
    text = everything_written(tmp_path, done.stdout, done.stderr)
    assert not [secret for secret in [*secrets, *used, "Signature="] if secret in text]


def test_an_interrupted_fetch_writes_no_secret(
    origin: Origin, secrets: list[str], tmp_path: Path, start_fetcher: StartFetcher
) -> None:
    origin.throttle(total=16 * MiB)
    fetching = start_fetcher("fetch", URI, "--cache-dir", tmp_path, "--progress", "json")
    wait_until(lambda: any(b'"part"' in path.read_bytes() for path in tmp_path.rglob("journal.*")), "some data is journalled")
    fetching.send_signal(signal.SIGTERM)
    stdout, stderr = fetching.communicate(timeout=10)
    text = everything_written(tmp_path, stdout, stderr)
    assert "journal." in text
    assert not [secret for secret in [*secrets, *signatures(origin)] if secret in text]


class TestAddressesWithSecrets:
    """Secrets in the userinfo and query values of the URL itself."""

    @pytest.fixture
    def uri(self, origin: Origin) -> str:
        address = origin.add_file("/model.safetensors", FILES["model.safetensors"])
        return address.replace("://", "://user:pa55word@") + "?X-Amz-Signature=s3cret&part=tw0"

    def check(self, tmp_path: Path, done: subprocess.CompletedProcess[str]) -> None:
        text = everything_written(tmp_path, done.stdout, done.stderr)
        assert not [secret for secret in ("pa55word", "s3cret", "tw0") if secret in text], text

    def test_no_command_shows_a_secret_of_the_url(self, uri: str, tmp_path: Path) -> None:
        place = ("--cache-dir", tmp_path / "cache")
        self.check(tmp_path, run_fetcher("fetch", uri, *place, "--termination-log", tmp_path / "log"))
        for words in (["plan", uri], ["list"], ["show", uri]):
            for flags in ([], ["--json"]):
                done = run_fetcher(*words, *place, *flags)
                assert done.returncode == 0, done.stderr
                assert "model.safetensors" in done.stdout
                self.check(tmp_path, done)

    def test_a_url_that_is_not_found_is_shown_without_secrets(self, uri: str, tmp_path: Path) -> None:
        absent = uri.replace("model.safetensors", "absent")
        words = ("--cache-dir", tmp_path / "cache", "--termination-log", tmp_path / "log")
        for done in (run_fetcher("fetch", absent, *words), run_fetcher("show", absent, *words[:2])):
            assert done.returncode == 66
            self.check(tmp_path, done)

    def test_a_url_that_is_unreachable_is_shown_without_secrets(self, uri: str, origin: Origin, tmp_path: Path) -> None:
        origin.stop()
        words = ("--cache-dir", tmp_path / "cache", "--termination-log", tmp_path / "log", "--retry-for", "0")
        done = run_fetcher("fetch", uri, *words)
        assert done.returncode == 69
        self.check(tmp_path, done)
