"""SIGTERM, SIGINT and SIGHUP end every command within two seconds, keep staging and print a last line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.cli.conftest import SLOW, SLOW_WEIGHTS, MiB, last_line
from tests.lab.command import end, run_fetcher, started_fetcher
from tests.lab.fixtures import StartFetcher
from tests.lab.waiting import wait_until

every_signal = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


@pytest.fixture(autouse=True)
def default_signal_handlers() -> Iterator[None]:
    """Let child processes receive signals: in a shell's background or under nohup they would ignore SIGINT and SIGHUP."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stderr_after_signal(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send the signal, check exit code and time, and return stderr.

    The limit is four seconds, twice the promised two, for a busy machine; a stall would take thirty.
    """
    began = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=10)
    assert time.monotonic() - began < 4.0
    assert process.returncode == 128 + number, stderr
    return stderr


@every_signal
def test_a_signal_during_a_fetch_keeps_staging_and_the_next_fetch_resumes(
    origin: Origin, start_fetcher: StartFetcher, tmp_path: Path, number: signal.Signals
) -> None:
    origin.throttle(total=6 * MiB)
    cache, log = tmp_path / "cache", tmp_path / "log"
    fetching = start_fetcher("fetch", SLOW, "--cache-dir", cache, "--termination-log", log, "--max-concurrency", "2")
    wait_until(lambda: any(b'"part"' in path.read_bytes() for path in cache.rglob("journal.*")), "some data is journalled")
    assert last_line(stderr_after_signal(fetching, number)).startswith(f"Interrupted: {number.name} received; staging is kept")
    message = json.loads(log.read_text())
    assert (message["reason"], message["retryable"]) == ("Interrupted", True)
    assert 0 < message["bytes"] < len(SLOW_WEIGHTS)
    assert not list(cache.glob("*/model.safetensors"))

    origin.throttle()
    again = json.loads(run_fetcher("fetch", SLOW, "--cache-dir", cache, "--json").stdout)
    assert again["bytes_reused"] > 0
    assert (Path(again["path"]) / "model.safetensors").read_bytes() == SLOW_WEIGHTS


def test_a_signal_ends_a_fetch_whose_source_does_not_answer(
    origin: Origin, start_fetcher: StartFetcher, tmp_path: Path
) -> None:
    origin.faults.add(Fault(Stall(), origin="hub"))
    fetching = start_fetcher("fetch", SLOW, "--cache-dir", tmp_path)
    wait_until(lambda: bool(origin.requests), "the source is asked")
    assert last_line(stderr_after_signal(fetching, signal.SIGTERM)).startswith("Interrupted: SIGTERM")


def test_a_signal_ends_a_fetch_that_waits_for_another_process(
    origin: Origin, start_fetcher: StartFetcher, tmp_path: Path
) -> None:
    origin.throttle(total=MiB)
    start_fetcher("fetch", SLOW, "--cache-dir", tmp_path)
    wait_until(lambda: bool(list(tmp_path.rglob("lease.*"))), "the first one holds the lease")
    waiting = start_fetcher("fetch", SLOW, "--cache-dir", tmp_path)
    assert waiting.stderr is not None
    line = waiting.stderr.readline()
    while line and "waiting for" not in line:
        line = waiting.stderr.readline()
    assert "which is fetching the same artifact" in line
    assert last_line(stderr_after_signal(waiting, signal.SIGTERM)).startswith("Interrupted: SIGTERM")


def test_a_signal_ends_a_verification(start_fetcher: StartFetcher, tmp_path: Path) -> None:
    directory = artifact_of_zeros(tmp_path, size=4096 * MiB)
    verifying = start_fetcher("verify", directory)
    wait_until(lambda: bytes_read(verifying.pid) > 64 * MiB, "it reads")
    assert last_line(stderr_after_signal(verifying, signal.SIGTERM)).startswith("Interrupted: SIGTERM")


def artifact_of_zeros(tmp_path: Path, *, size: int) -> Path:
    """Create an artifact of one sparse file with its manifest: it takes seconds to read and no disk space."""
    directory = tmp_path / "artifact"
    (directory / RELATIVE_PATH).parent.mkdir(parents=True)
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(size)
    chunk = xxhash.xxh3_128_hexdigest(bytes(CHUNK_SIZE))
    files = [ManifestFile("model.safetensors", size, (), (chunk,) * (size // CHUNK_SIZE))]
    manifest = Manifest.for_request(ArtifactRef("hf://org/zeros"), revision=None, files=files, created="", version="")
    (directory / RELATIVE_PATH).write_bytes(manifest.to_bytes())
    return directory


def bytes_read(pid: int) -> int:
    """Return the bytes that a process has read so far, as counted by the kernel."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["rchar"])


def test_nohup_is_respected(origin: Origin, tmp_path: Path) -> None:
    origin.throttle(total=16 * MiB)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        fetching = started_fetcher("fetch", SLOW, "--cache-dir", tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        wait_until(lambda: bool(list(tmp_path.rglob("journal.*"))), "it fetches")
        fetching.send_signal(signal.SIGHUP)
        stdout, stderr = fetching.communicate(timeout=20)
        assert (fetching.returncode, os.path.isdir(stdout.strip())) == (0, True), stderr
    finally:
        end(fetching)
