"""An init container's memory limit includes page cache: a fetch of six times the limit must succeed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.containers import Podman
from tests.lab.fixtures import StartNginx

MiB = 1024 * 1024
SIZE = 3_000_000_000
DIGEST = "16b29649590001513483bb869fd5b39a6a8d3f2aea76680cea66d3feb21a2243"
"""SHA-256 of `SIZE` zeros."""

LIMIT = ("--memory=512m", "--memory-swap=512m")


@pytest.fixture
def address(nginx: StartNginx, tmp_path: Path) -> str:
    """The address of a sparse file of 3 GB. On the volume it takes its full size, because received data is written."""
    served = tmp_path / "served"
    served.mkdir()
    with (served / "model.safetensors").open("wb") as file:
        file.truncate(SIZE)
    return f"{nginx(served).url}/model.safetensors"


def test_the_limit_kills_a_process_that_exceeds_it(podman: Podman, image: str) -> None:
    """Without this the next test proves nothing."""
    done = podman.run(image, "python", "-c", f"bytearray({600 * MiB})", options=LIMIT)
    assert done.returncode == 137


@pytest.mark.timeout(300, func_only=True)
def test_three_gigabytes_are_fetched_within_half_a_gibibyte(podman: Podman, image: str, address: str, volume: Path) -> None:
    words = ("fetcher", "fetch", f"{address}#sha256={DIGEST}", "--dest", "/models", "--json")
    done = podman.run(image, *words, mounts={volume: "/models"}, options=LIMIT, timeout=240)
    assert done.returncode == 0, done.stderr
    artifact = json.loads(done.stdout)
    assert (artifact["bytes"], artifact["verified"]) == (SIZE, True)
    weights = (volume / "model.safetensors").stat()
    assert (weights.st_size, weights.st_blocks * 512 >= SIZE) == (SIZE, True)
