"""A swap by two renames: any number of processes may complete it at the same time, and the new version is published."""

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
    """Write a complete artifact without files."""
    manifest = Manifest.for_request(REF, revision=revision, files=(), created="", version="")
    (path / RELATIVE_PATH).parent.mkdir(parents=True)
    (path / RELATIVE_PATH).write_bytes(manifest.to_bytes())


def revision_at(path: Path) -> str | None:
    manifest = Manifest.read(path / RELATIVE_PATH)
    return manifest.revision if manifest else None


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root with a swap that has begun."""
    root = Root(tmp_path)
    artifact(root.path / REF.key, "old")
    artifact(root.ready / root.old_name(REF.key, "old").name, "new")
    return root


def assert_swapped(root: Root) -> None:
    assert revision_at(root.path / REF.key) == "new"
    assert [revision_at(path) for path in root.old.iterdir()] == ["old"]
    assert not list(root.ready.iterdir())


def test_a_swap_that_has_begun_is_completed_once(root: Root) -> None:
    finish_swaps(root.path)
    finish_swaps(root.path)
    assert_swapped(root)


def test_a_swap_is_completed_after_a_kill_between_its_renames(root: Root) -> None:
    (name,) = (path.name for path in root.ready.iterdir())
    root.old.mkdir()
    (root.path / REF.key).rename(root.old / name)
    finish_swaps(root.path)
    assert_swapped(root)


def test_a_version_without_a_manifest_is_not_swapped_in(root: Root) -> None:
    (ready,) = root.ready.iterdir()
    (ready / RELATIVE_PATH).unlink()
    finish_swaps(root.path)
    assert revision_at(root.path / REF.key) == "old"


def test_eight_threads_complete_the_same_swap(root: Root) -> None:
    barrier = Barrier(8)

    def finish(_: int) -> None:
        barrier.wait()
        finish_swaps(root.path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(finish, range(8)))
    assert_swapped(root)


@pytest.mark.parametrize("old_is_still_there", [True, False])
def test_a_process_that_comes_too_late_keeps_the_new_version(
    root: Root, monkeypatch: pytest.MonkeyPatch, old_is_still_there: bool
) -> None:
    """Another process completes the swap after this one has read `ready` and before its first rename."""
    if not old_is_still_there:
        shutil.rmtree(root.path / REF.key)
    read = Manifest.read

    def read_and_be_overtaken(path: Path) -> Manifest | None:
        manifest = read(path)
        monkeypatch.setattr(Manifest, "read", read)
        finish_swaps(root.path)
        return manifest

    monkeypatch.setattr(Manifest, "read", read_and_be_overtaken)
    finish_swaps(root.path)
    assert revision_at(root.path / REF.key) == "new"
