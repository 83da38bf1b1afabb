"""A killed container leaves no visible model, and its successor resumes the fetch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from tests.lab.containers import Container, Podman
from tests.lab.fixtures import StartNginx
from tests.lab.nginx import Behaviour
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
SIZE = 128 * MiB
SLOWLY = 8 * MiB
"""Bytes a second on each of four connections: the fetch takes four seconds, and the kill comes after a few tenths."""


@pytest.fixture(scope="module")
def weights() -> bytes:
    return random_bytes("weights", SIZE)


@pytest.fixture
def words(nginx: StartNginx, weights: bytes, tmp_path: Path) -> list[str]:
    """The command that fetches a model in some seconds.

    A container has its own PID namespace, so its successor cannot see that the previous owner is dead. It waits until the lease
    is stale, here for a shorter time than by default.
    """
    served = tmp_path / "served"
    served.mkdir()
    (served / "model.safetensors").write_bytes(weights)
    address = f"{nginx(served, Behaviour(limit_rate=SLOWLY)).url}/model.safetensors"
    options = ["--cache-dir", "/models", "--max-concurrency", "4", "--lease-stale", "2s", "--json"]
    return ["fetcher", "fetch", address, *options]


def finished_chunks(volume: Path) -> int:
    return sum(path.read_bytes().count(b'"chunk"') for path in volume.rglob("journal.*"))


def visible(volume: Path) -> list[Path]:
    return [path for path in volume.rglob("*") if path.is_file() and ".fetcher" not in path.relative_to(volume).parts]


def test_a_killed_fetch_leaves_nothing_visible_and_is_resumed(
    podman: Podman, image: str, words: list[str], weights: bytes, volume: Path
) -> None:
    with podman.started(image, *words, mounts={volume: "/models"}) as container:
        finished = wait_for_a_finished_chunk(container, volume)
        container.kill()
        assert container.wait() == 137
    assert not visible(volume)

    again = podman.run(image, *words, mounts={volume: "/models"})
    assert again.returncode == 0, again.stderr
    artifact = json.loads(again.stdout)
    assert artifact["bytes_reused"] >= finished * 16 * MiB
    assert (volume / artifact["cache_key"] / "model.safetensors").read_bytes() == weights


def test_a_stopped_fetch_releases_its_lease_so_its_successor_need_not_wait(
    podman: Podman, image: str, words: list[str], volume: Path, termination_log: Path
) -> None:
    """The command is process 1 of its container, so only signals that it handles can end it."""
    mounts = {volume: "/models", termination_log: "/dev/termination-log"}
    with podman.started(image, *words, mounts=mounts) as container:
        wait_for_a_finished_chunk(container, volume)
        container.stop()
        assert container.wait() == 143, container.logs()
    message = json.loads(termination_log.read_text())
    assert (message["reason"], message["retryable"]) == ("Interrupted", True)
    assert not visible(volume)

    again = podman.run(image, *words, mounts=mounts)
    assert again.returncode == 0, again.stderr
    assert "waiting for" not in again.stderr
    assert json.loads(again.stdout)["bytes_reused"] > 0


def wait_for_a_finished_chunk(container: Container, volume: Path) -> int:
    """Wait until some, but not all, chunks are finished, and return their number."""
    wait_until(lambda: finished_chunks(volume) > 0 or not container.is_running(), "a chunk is finished")
    finished = finished_chunks(volume)
    assert 0 < finished < SIZE // (16 * MiB), container.logs()
    return finished
