"""An owner notices that its heartbeat was removed. At most one of two writers publishes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine import fetch
from fetcher.errors import LeaseLost
from fetcher.events import Event, FileVerified
from fetcher.settings import Settings
from fetcher.store import keyed
from fetcher.store.lease import Observation, observe, take_over
from fetcher.store.owner import Owner
from fetcher.testing.origin import Origin
from tests.crash.conftest import NEW, OLD, WEIGHTS, Successor, assert_verified, visible

REF = ArtifactRef("hf://org/model")


def removed(heartbeat: Path) -> None:
    heartbeat.unlink()


def replaced_by_a_copy(heartbeat: Path) -> None:
    copy = heartbeat.with_name("copy")
    copy.write_bytes(heartbeat.read_bytes())
    copy.rename(heartbeat)


def replaced_by_nothing(heartbeat: Path) -> None:
    heartbeat.unlink()
    heartbeat.touch()


def replaced_by_a_link(heartbeat: Path) -> None:
    heartbeat.rename(heartbeat.with_name("moved"))
    heartbeat.symlink_to("moved")


def gone_with_all_of_staging(heartbeat: Path) -> None:
    shutil.rmtree(heartbeat.parents[1])


WAYS = [removed, replaced_by_a_copy, replaced_by_nothing, replaced_by_a_link, gone_with_all_of_staging]
PLACES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "keyed": lambda root: {"cache_dir": root},
    "in place": lambda root: {"cache_dir": root, "dest": root},
    "hf-cache": lambda root: {"cache_dir": root, "layout": "hf-cache"},
}


def heartbeat_below(root: Path) -> Path:
    (found,) = root.glob(".fetcher/staging/*/lease.*")
    return found


@pytest.mark.parametrize("lose", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_an_owner_that_loses_its_heartbeat_before_the_commit_publishes_nothing(
    place: str, lose: Callable[[Path], None], origin: Origin, finish: Successor, tmp_path: Path
) -> None:
    origin.add_repo("org/model", OLD)
    given, done = PLACES[place](tmp_path), False

    def listen(event: Event) -> None:
        nonlocal done
        if isinstance(event, FileVerified) and not done:
            done = True
            lose(heartbeat_below(tmp_path))

    with pytest.raises(LeaseLost, match="run the same command again"):
        asyncio.run(fetch(REF, Settings(**given), listen))
    assert done
    assert not [path for path in visible(tmp_path) if not path.endswith(".fetcher")]

    artifact = finish(**given)
    assert {path: content for path, content in visible(artifact.path).items() if path in OLD} == OLD


@pytest.mark.parametrize("lose", [removed, replaced_by_a_copy, replaced_by_nothing])
def test_an_owner_without_a_heartbeat_does_not_count_as_dead(
    lose: Callable[[Path], None], origin: Origin, tmp_path: Path
) -> None:
    """It keeps writing into its inodes until it notices, so nobody may reuse them."""
    origin.add_repo("org/model", OLD)
    seen: list[Observation | None] = []

    def listen(event: Event) -> None:
        if isinstance(event, FileVerified) and not seen:
            heartbeat = heartbeat_below(tmp_path)
            lose(heartbeat)
            seen.append(observe(heartbeat.parent))

    with pytest.raises(LeaseLost):
        asyncio.run(fetch(REF, Settings(cache_dir=tmp_path), listen))
    assert [(each is not None, each.abandoned if each else None) for each in seen] == [(True, False)]


@pytest.mark.parametrize(
    ("place", "moment"),
    [("keyed", "sealing"), ("in place", "sealing"), ("hf-cache", "sealing"), ("in place", "sealed"), ("hf-cache", "sealed"),
     ("in place", f"placed {WEIGHTS[0]}"), ("hf-cache", f"placed {WEIGHTS[0]}"), ("hf-cache", "snapshot placed")],
)  # fmt: skip
def test_an_owner_replaced_during_its_commit_publishes_nothing_more(
    place: str, moment: str, origin: Origin, finish: Successor, tmp_path: Path
) -> None:
    """The heartbeat was removed and another owner took over. The new directory name fences off the first owner."""
    origin.add_repo("org/model", OLD)
    given = PLACES[place](tmp_path)

    def step(name: str) -> None:
        if name == moment:
            directory = heartbeat_below(tmp_path).parent
            heartbeat_below(tmp_path).unlink()
            seen = observe(directory)
            assert seen is not None
            successor = take_over(directory, seen, stale=60.0)
            assert successor is not None
            successor.release()

    with pytest.raises(LeaseLost):
        asyncio.run(fetch(REF, Settings(**given), step=step))
    artifact = finish(**given)
    if place != "hf-cache":
        assert_verified(artifact.path)
    assert {path: content for path, content in visible(artifact.path).items() if path in OLD} == OLD


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("place", ["first", "newer"])
def test_a_directory_of_a_replaced_owner_is_not_published(
    place: str, exchange: bool, origin: Origin, finish: Successor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat disappears just before the rename that publishes."""
    if not exchange:
        monkeypatch.setattr(keyed, "exchange", lambda *_: False)
    repository = origin.add_repo("org/model", OLD)
    if place == "newer":
        finish(cache_dir=tmp_path)
        origin.update_repo(repository, NEW)

    def step(name: str) -> None:
        if name == "sealed":
            (data,) = tmp_path.glob(".fetcher/staging/*/data.*")
            data.rename(data.with_name(f"data.{Owner.new()}"))

    with pytest.raises(LeaseLost, match="another process took over"):
        asyncio.run(fetch(REF, Settings(cache_dir=tmp_path, refresh="on-change"), step=step))
    assert visible(tmp_path / REF.key) == (OLD if place == "newer" else {})
