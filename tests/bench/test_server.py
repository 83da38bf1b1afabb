"""nginx as Hub and CDN, and the bare loop as its client."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.downloading import CLIENTS
from benchmarks.fetching.commands import environment, write_lists
from benchmarks.fetching.server import serving
from benchmarks.publishing import Repository, Shape, publish
from tests.lab.availability import program
from tests.lab.command import run_fetcher

SHAPE = Shape(3, 1_000_003)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    program("nginx", package="nginx-light")
    return publish(tmp_path / "served", SHAPE)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_fetcher_fetches_from_it_as_from_the_hub(repository: Repository, tmp_path: Path, tls: bool) -> None:
    with serving(repository, tmp_path / "nginx", tls=tls) as server:
        words = ("fetch", f"hf://{repository.name}", "--require-digests", "--dest", tmp_path / "copy")
        done = run_fetcher(*words, env=environment(server, tmp_path))
        assert done.returncode == 0, done.stderr
        assert server.sent() == SHAPE.total
    assert repository.arrived(tmp_path / "copy") is None


def test_the_undigested_repository_lists_no_digests(repository: Repository, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "nginx") as server:
        environ = environment(server, tmp_path)
        words = ("fetch", f"hf://{repository.undigested}", "--dest", tmp_path / "copy")
        refused = run_fetcher(*words, "--require-digests", env=environ)
        assert refused.returncode == 65, refused.stderr
        done = run_fetcher(*words, env=environ)
        assert done.returncode == 0, done.stderr
    assert repository.arrived(tmp_path / "copy") is None


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_bare_loop_downloads_every_byte(repository: Repository, tmp_path: Path, tls: bool) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with serving(repository, tmp_path / "nginx", tls=tls) as server:
        lists = write_lists(server, tmp_path / "lists")
        numbers = ["--connections=2", "--range=300000", "--buffer=65536"]
        words: list[str | Path] = [sys.executable, CLIENTS / "bare_loop.py", lists / "addresses", copy, *numbers]
        subprocess.run(words, env=environment(server, tmp_path), check=True)
    assert repository.arrived(copy) is None


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_bare_loop_that_asks_the_hub_makes_one_more_request_a_file_and_gets_the_same(
    repository: Repository, tmp_path: Path, tls: bool
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    with serving(repository, tmp_path / "nginx", tls=tls) as server:
        lists = write_lists(server, tmp_path / "lists")
        assert all(line.startswith(server.hub) for line in (lists / "asked").read_text().splitlines())
        numbers = ["--connections=2", "--range=100000000", "--buffer=65536"]
        words: list[str | Path] = [sys.executable, CLIENTS / "bare_loop.py", lists / "asked", copy, *numbers]
        subprocess.run(words, env=environment(server, tmp_path), check=True)
        assert server.sent() == repository.shape.total
    assert repository.arrived(copy) is None


def test_the_processor_time_of_the_server_grows_with_what_it_sends(repository: Repository, tmp_path: Path) -> None:
    with serving(repository, tmp_path / "nginx") as server:
        lists = write_lists(server, tmp_path / "lists")
        before = server.processor_time()
        words: list[str | Path] = ["curl", "--silent", "--fail", "--config", lists / "curl", "--output-dir", tmp_path]
        subprocess.run(words, env=environment(server, tmp_path), check=True)
        assert 0 < before < server.processor_time()


def test_a_copy_with_one_wrong_byte_is_detected(repository: Repository, tmp_path: Path) -> None:
    copy = shutil.copytree(repository.directory, tmp_path / "copy")
    name = repository.files[1].name
    content = bytearray((copy / name).read_bytes())
    content[500_000] ^= 1
    (copy / name).write_bytes(content)
    assert repository.arrived(copy) == f"{name} differs from the served file"
    (copy / name).unlink()
    assert repository.arrived(copy) == f"{name} is missing"
