"""Leases, placement, residency and reading on a real NFSv4.2 mount. All scenarios run once, in one guest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab.uml import played_on_nfs
from tests.nfs.played import MiB

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(520)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("nfs")
    played_on_nfs(["env", f"--chdir={ROOT}", sys.executable, "-m", "tests.nfs.played", out], out, timeout=480)
    result: dict[str, dict[str, Any]] = json.loads((out / "seen.json").read_text())
    return result


@pytest.fixture
def observed(seen: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    """The observations of the scenario with the test's name."""
    observations = seen[request.node.name.removeprefix("test_")]
    if "failed" in observations:
        pytest.fail(observations["failed"], pytrace=False)
    return observations


def test_two_writers_fetch_every_byte_once(observed: dict[str, Any]) -> None:
    assert sorted(observed["cached"]) == [False, True]
    assert observed["fetched"] == observed["size"]
    assert observed["verified"] == 0
    assert observed["left"] == []


def test_a_fetch_continues_in_the_inodes_of_a_dead_owner_on_this_host(observed: dict[str, Any]) -> None:
    assert observed["reused"] > 16 * MiB
    assert observed["same_inode"]


def test_a_fetch_copies_the_chunks_of_a_silent_owner_elsewhere(observed: dict[str, Any]) -> None:
    assert observed["reused"] > 16 * MiB
    assert not observed["same_inode"]
    assert observed["verified"] == 0


def test_a_fetch_fills_a_destination_in_place(observed: dict[str, Any]) -> None:
    assert observed["code"] == 0
    assert {"config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"} < set(observed["names"])


def test_warm_and_drop_change_the_residency(observed: dict[str, Any]) -> None:
    assert observed["cold"]["after"]["fraction"] == 0
    assert observed["warm"]["after"] == {**observed["warm"]["after"], "fraction": 1.0, "method": "mincore"}
    assert observed["warm"]["read_by"] == ["preadv"]
    assert observed["status"]["filesystem"]["kind"] == "nfs4"
    assert observed["status"]["strategy"] == "buffered"
    assert "reads ahead only 128 KiB" in observed["status"]["read_ahead_advice"]
    assert observed["evicted"]["after"]["fraction"] == 0


def test_every_strategy_reads_the_same_tensors(observed: dict[str, Any]) -> None:
    assert len(observed) == 5
    assert len(set(observed.values())) == 1


def test_a_copy_into_memory_is_verified(observed: dict[str, Any]) -> None:
    assert observed["result"]["verified"]
    assert "model-00002-of-00002.safetensors" in observed["names"]


def test_loading_a_file_that_was_removed_on_the_server_fails(observed: dict[str, Any]) -> None:
    assert (observed["reason"], observed["retryable"]) in {("FileReplaced", True), ("NotFound", False)}


def test_processes_share_a_bounded_cache(observed: dict[str, Any]) -> None:
    assert observed["problems"] == []
    assert observed["codes"] == {"repaired": 0, "verified": 0, "collected": 0}
    assert observed["left"] == []
    assert observed["within"]
