"""Leases, placement, residency and reading on a real NFSv4.2 mount, played once in a guest of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.uml import played_on_nfs
from tests.nfs.played import MiB

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("nfs")
    played_on_nfs(["env", f"--chdir={ROOT}", sys.executable, "-m", "tests.nfs.played", out], out, timeout=360)
    result: dict[str, dict[str, Any]] = json.loads((out / "seen.json").read_text())
    return result


@pytest.fixture
def play(seen: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the play of the test's name saw."""
    found = seen[request.node.name.removeprefix("test_")]
    if "failed" in found:
        pytest.fail(found["failed"], pytrace=False)
    return found


def test_two_writers(play: dict[str, Any]) -> None:
    assert sorted(play["cached"]) == [False, True]
    assert play["fetched"] == play["size"]
    assert play["verified"] == 0
    assert play["left"] == []


def test_a_dead_owner_of_this_host(play: dict[str, Any]) -> None:
    assert play["reused"] > 16 * MiB
    assert play["same_inode"]


def test_a_dead_owner_elsewhere(play: dict[str, Any]) -> None:
    assert play["reused"] > 16 * MiB
    assert not play["same_inode"]
    assert play["verified"] == 0


def test_in_place(play: dict[str, Any]) -> None:
    assert play["code"] == 0
    assert {"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"} < set(play["names"])


def test_residency(play: dict[str, Any]) -> None:
    assert play["cold"]["after"]["fraction"] == 0
    assert play["warm"]["after"] == {**play["warm"]["after"], "fraction": 1.0, "method": "mincore"}
    assert play["warm"]["read_by"] == ["preadv"]
    assert play["status"]["filesystem"]["kind"] == "nfs4"
    assert play["status"]["strategy"] == "buffered"
    assert "reads ahead only 128 KiB" in play["status"]["read_ahead_advice"]
    assert play["evicted"]["after"]["fraction"] == 0


def test_tensors(play: dict[str, Any]) -> None:
    assert len(play) == 5
    assert len(set(play.values())) == 1


def test_copied_into_memory(play: dict[str, Any]) -> None:
    assert play["told"]["verified"]
    assert "model-00002-of-00002.safetensors" in play["names"]


def test_removed_on_the_server(play: dict[str, Any]) -> None:
    assert (play["reason"], play["retryable"]) in {("FileReplaced", True), ("NotFound", False)}
