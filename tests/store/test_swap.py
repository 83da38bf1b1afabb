"""Two renames in the place of one step: however many processes complete them at once, the new version stands there."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.keyed import finish_swaps
from fetcher.store.layout import Root

REF = ArtifactRef("hf://org/model")


def artifact(path: Path, revision: str) -> None:
    """A complete one without files."""
    manifest = Manifest.for_request(REF, revision=revision, files=(), created="", version="")
    (path / RELATIVE_PATH).parent.mkdir(parents=True)
    (path / RELATIVE_PATH).write_bytes(manifest.to_bytes())


def revision_at(path: Path) -> str | None:
    manifest = Manifest.read(path / RELATIVE_PATH)
    return manifest.revision if manifest else None


@pytest.fixture
def begun(tmp_path: Path) -> Root:
    """A root whose artifact is about to be replaced."""
    root = Root(tmp_path)
    artifact(root.path / REF.key, "old")
    artifact(root.ready / root.old_name(REF.key, "old").name, "new")
    return root


def assert_swapped(root: Root) -> None:
    assert revision_at(root.path / REF.key) == "new"
    assert [revision_at(path) for path in root.old.iterdir()] == ["old"]
    assert not list(root.ready.iterdir())


def test_it_is_completed(begun: Root) -> None:
    finish_swaps(begun.path)
    finish_swaps(begun.path)
    assert_swapped(begun)


def test_a_version_that_was_moved_away_already_stays_where_it_is(begun: Root) -> None:
    (name,) = (path.name for path in begun.ready.iterdir())
    begun.old.mkdir()
    (begun.path / REF.key).rename(begun.old / name)
    finish_swaps(begun.path)
    assert_swapped(begun)


def test_what_is_not_sealed_is_not_swapped_in(begun: Root) -> None:
    (ready,) = begun.ready.iterdir()
    (ready / RELATIVE_PATH).unlink()
    finish_swaps(begun.path)
    assert revision_at(begun.path / REF.key) == "old"


def test_eight_at_once(begun: Root) -> None:
    barrier = Barrier(8)

    def finish(_: int) -> None:
        barrier.wait()
        finish_swaps(begun.path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(finish, range(8)))
    assert_swapped(begun)


@pytest.mark.parametrize("old_is_still_there", [True, False])
def test_one_that_comes_too_late_moves_nothing_away(
    begun: Root, monkeypatch: pytest.MonkeyPatch, old_is_still_there: bool
) -> None:
    """Another one completes it all between a look at `ready` and the first rename."""
    if not old_is_still_there:
        shutil.rmtree(begun.path / REF.key)
    read = Manifest.read

    def read_and_be_overtaken(path: Path) -> Manifest | None:
        manifest = read(path)
        monkeypatch.setattr(Manifest, "read", read)
        finish_swaps(begun.path)
        return manifest

    monkeypatch.setattr(Manifest, "read", read_and_be_overtaken)
    finish_swaps(begun.path)
    assert revision_at(begun.path / REF.key) == "new"
