"""Killed before any step of a commit: what is visible is right, and the next run finishes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from fetcher.artifact import ArtifactRef
from fetcher.testing.origin import Origin
from tests.crash.conftest import NEW, OLD, Victims, assert_in_place, assert_nothing_or_complete, assert_verified, visible

KEY = ArtifactRef("hf://org/model").key


def test_a_first_keyed_publication(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    origin.add_repo("org/model", OLD)
    steps = 0
    while True:
        code, _, stderr = victims.run(cache_dir=tmp_path / str(steps), kill_at=steps)
        assert_nothing_or_complete(tmp_path / str(steps) / KEY, OLD)
        if code == 0:
            break
        assert code == -signal.SIGKILL, stderr
        origin.clear_requests()
        assert victims.run(cache_dir=tmp_path / str(steps))[0] == 0
        assert not [request for request in origin.requests if request.origin == "cdn"], "weights were fetched again"
        assert visible(tmp_path / str(steps) / KEY) == OLD
        assert_verified(tmp_path / str(steps) / KEY)
        steps += 1
    assert steps >= 3


@pytest.mark.parametrize("exchange", [True, False], ids=["by exchange", "by two renames"])
def test_a_keyed_refresh(origin: Origin, victims: Victims, tmp_path: Path, exchange: bool) -> None:
    repository = origin.add_repo("org/model", OLD)
    code, steps = -signal.SIGKILL, 0
    while code != 0:
        root = tmp_path / str(steps)
        origin.update_repo(repository, OLD)
        assert victims.run(cache_dir=root)[0] == 0
        origin.update_repo(repository, NEW)
        code, names, stderr = victims.run(cache_dir=root, refresh="on-change", exchange=exchange, kill_at=steps)
        assert code in (0, -signal.SIGKILL), stderr
        if exchange or not names or names[-1] != "old moved away":
            assert visible(root / KEY) in (OLD, NEW)
        assert_nothing_or_complete(root / KEY, OLD, NEW)
        assert victims.run(cache_dir=root, refresh="on-change", exchange=exchange)[0] == 0
        assert visible(root / KEY) == NEW
        assert_verified(root / KEY)
        steps += 1
    assert steps >= 3


def test_in_place(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    """First, and then between two revisions of equal sizes."""
    repository = origin.add_repo("org/model", OLD)
    code, steps = -signal.SIGKILL, 0
    while code != 0:
        directory = tmp_path / f"first-{steps}"
        code, _, stderr = victims.run(dest=directory, kill_at=steps)
        assert code in (0, -signal.SIGKILL), stderr
        assert_in_place(directory, OLD)
        assert victims.run(dest=directory)[0] == 0
        assert visible(directory) == OLD
        assert_verified(directory)
        steps += 1
    first = steps
    code, steps = -signal.SIGKILL, 0
    while code != 0:
        directory = tmp_path / f"refresh-{steps}"
        origin.update_repo(repository, OLD)
        assert victims.run(dest=directory)[0] == 0
        origin.update_repo(repository, NEW)
        code, _, stderr = victims.run(dest=directory, refresh="on-change", kill_at=steps)
        assert code in (0, -signal.SIGKILL), stderr
        assert_in_place(directory, OLD, NEW)
        assert victims.run(dest=directory, refresh="on-change")[0] == 0
        assert visible(directory) == NEW
        assert_verified(directory)
        steps += 1
    assert min(first, steps) >= 6


def test_the_hubs_cache_layout(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    repository = origin.add_repo("org/model", OLD)
    code, steps = -signal.SIGKILL, 0
    while code != 0:
        root = tmp_path / str(steps)
        code, _, stderr = victims.run(cache_dir=root, layout="hf-cache", kill_at=steps)
        assert code in (0, -signal.SIGKILL), stderr
        if (root / "models--org--model" / "refs" / "main").exists():
            assert visible(Path(snapshot_download("org/model", cache_dir=root, local_files_only=True))) == OLD
        assert victims.run(cache_dir=root, layout="hf-cache")[0] == 0
        found = Path(snapshot_download("org/model", cache_dir=root, local_files_only=True))
        assert visible(found) == OLD
        assert found.name == repository.commit
        steps += 1
    assert steps >= 5
