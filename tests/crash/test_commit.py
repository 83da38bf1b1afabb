"""A kill at any step of a commit: visible files are right, and the next run finishes without fetching weights again."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from fetcher.artifact import ArtifactRef
from fetcher.store.catalog import entries
from fetcher.testing.origin import Origin
from tests.crash.conftest import (
    NEW,
    OLD,
    Successor,
    Victims,
    assert_in_place,
    assert_nothing_or_complete,
    assert_verified,
    fetched_files,
    visible,
)

KEY = ArtifactRef("hf://org/model").key


class Kills:
    """Fetches killed at their first step, at their second step, and so on until one completes."""

    def __init__(self, victims: Victims, directory: Path) -> None:
        self._victims = victims
        self._directory = directory

    def __call__(self, option: str, *, onto: Path | None = None, least: int, **fields: Any) -> Iterator[tuple[Path, list[str]]]:
        """Yield, at least `least` times, the directory of `option` (a copy of `onto`) and the names of the completed steps."""
        number, code = 0, -signal.SIGKILL
        while code != 0:
            place = self._directory / f"killed-{number}"
            if onto is not None:
                shutil.copytree(onto, place, symlinks=True)
            code, names, stderr = self._victims.run(kill_at=number, **{option: place}, **fields)
            assert code in (0, -signal.SIGKILL), stderr
            number += 1
            yield place, names
            shutil.rmtree(place)
        assert number > least


@pytest.fixture
def kills(victims: Victims, tmp_path: Path) -> Kills:
    return Kills(victims, tmp_path)


def test_a_kill_during_a_first_keyed_publication(origin: Origin, kills: Kills, finish: Successor) -> None:
    origin.add_repo("org/model", OLD)
    for root, _ in kills("cache_dir", least=3):
        assert_nothing_or_complete(root / KEY, OLD)
        origin.clear_requests()
        finish(cache_dir=root)
        assert not fetched_files(origin)
        assert visible(root / KEY) == OLD
        assert_verified(root / KEY)
        assert not list((root / ".fetcher" / "staging").rglob("data.*/*"))


def test_a_kill_during_a_keyed_refresh_by_exchange(origin: Origin, kills: Kills, finish: Successor, tmp_path: Path) -> None:
    repository = origin.add_repo("org/model", OLD)
    finish(cache_dir=tmp_path / "old")
    origin.update_repo(repository, NEW)
    for root, _ in kills("cache_dir", onto=tmp_path / "old", least=3, refresh="on-change"):
        assert visible(root / KEY) in (OLD, NEW)
        assert_verified(root / KEY)
        origin.clear_requests()
        finish(cache_dir=root, refresh="on-change")
        assert not fetched_files(origin)
        assert visible(root / KEY) == NEW
        assert_verified(root / KEY)
        # Also after a kill between the exchange and the following rename: the old version does not stay in staging.
        assert not list((root / ".fetcher" / "staging").rglob("data.*"))
        assert [visible(each) for each in (root / ".fetcher" / "old").iterdir()] == [OLD]


def test_any_later_command_completes_a_keyed_refresh_by_two_renames(
    origin: Origin, kills: Kills, finish: Successor, tmp_path: Path
) -> None:
    repository = origin.add_repo("org/model", OLD)
    finish(cache_dir=tmp_path / "old")
    origin.update_repo(repository, NEW)
    for root, names in kills("cache_dir", onto=tmp_path / "old", least=4, refresh="on-change", exchange=False):
        assert (root / KEY).exists() or names[-1] == "old moved away"
        assert_nothing_or_complete(root / KEY, OLD, NEW)
        (listed,) = entries(root, on_newer=print)
        assert visible(listed.path) == (NEW if "ready" in names else OLD)
        origin.clear_requests()
        finish(cache_dir=root, refresh="on-change")
        assert not fetched_files(origin)
        assert visible(root / KEY) == NEW
        assert_verified(root / KEY)


def test_a_kill_during_a_first_placement_in_place(origin: Origin, kills: Kills, finish: Successor) -> None:
    origin.add_repo("org/model", OLD)
    for directory, _ in kills("dest", least=9):
        assert_in_place(directory, OLD)
        origin.clear_requests()
        finish(dest=directory)
        assert "model" not in {path.partition("-")[0] for path in fetched_files(origin)}
        assert visible(directory) == OLD
        assert_verified(directory)


def test_a_kill_during_a_refresh_in_place_between_revisions_of_equal_sizes(
    origin: Origin, kills: Kills, finish: Successor, tmp_path: Path
) -> None:
    repository = origin.add_repo("org/model", OLD)
    finish(dest=tmp_path / "old")
    origin.update_repo(repository, NEW)
    for directory, _ in kills("dest", onto=tmp_path / "old", least=8, refresh="on-change"):
        assert_in_place(directory, OLD, NEW)
        origin.clear_requests()
        finish(dest=directory, refresh="on-change")
        assert "model" not in {path.partition("-")[0] for path in fetched_files(origin)}
        assert visible(directory) == NEW
        assert_verified(directory)


@pytest.mark.parametrize("before", [None, OLD], ids=["first", "refresh"])
def test_a_kill_during_a_commit_into_a_hub_cache(
    origin: Origin, kills: Kills, finish: Successor, tmp_path: Path, before: dict[str, bytes] | None
) -> None:
    repository = origin.add_repo("org/model", OLD)
    if before is not None:
        finish(cache_dir=tmp_path / "old", layout="hf-cache")
        origin.update_repo(repository, NEW)
    wanted = NEW if before is not None else OLD
    fields = {"layout": "hf-cache", "refresh": "on-change"}
    for root, _ in kills("cache_dir", onto=tmp_path / "old" if before else None, least=7, **fields):
        if before is not None or (root / "models--org--model" / "refs" / "main").exists():
            assert visible(Path(snapshot_download("org/model", cache_dir=root, local_files_only=True))) in (before, wanted)
        origin.clear_requests()
        finish(cache_dir=root, **fields)
        assert not fetched_files(origin)
        found = Path(snapshot_download("org/model", cache_dir=root, local_files_only=True))
        assert visible(found) == wanted
        assert found.name == repository.commit


def test_a_second_kill_during_the_resumption_of_a_sealed_artifact_loses_nothing(
    origin: Origin, victims: Victims, finish: Successor, tmp_path: Path
) -> None:
    """The next owner reads the whole artifact. A kill during that loses nothing, also not the unread rest."""
    origin.add_repo("org/model", OLD)
    assert victims.run(cache_dir=tmp_path, kill_at=1)[0] == -signal.SIGKILL
    assert victims.run(cache_dir=tmp_path, kill_on="Rechecked")[0] == -signal.SIGKILL
    origin.clear_requests()
    finish(cache_dir=tmp_path)
    assert not fetched_files(origin)
    assert_verified(tmp_path / KEY)
