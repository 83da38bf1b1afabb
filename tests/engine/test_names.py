"""Names that some filesystems tell apart and others do not. The destination decides, for selected files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine.preview import preview
from fetcher.errors import CannotWrite, DigestMismatch, HostilePath
from fetcher.events import Warned
from fetcher.settings import Settings
from fetcher.testing.faults import Fault
from fetcher.testing.listings import extra_files
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents

ALIKE = {
    "README.md and readme.md": {"README.md": b"one", "readme.md": b"two"},
    "Data/ and data/": {"Data/a.txt": b"one", "data/b.txt": b"two"},
    "a file and a directory": {"Notes": b"one", "notes/b.txt": b"two"},
    "composed and decomposed": {"caf\u00e9.txt": b"one", "cafe\u0301.txt": b"two"},
    "sharp s": {"stra\u00dfe": b"one", "STRASSE": b"two"},
    "a dot at the end": {"model": b"one", "model.": b"two"},
    "a space at the end": {"data/a": b"one", "data /b": b"two"},
}


@pytest.mark.parametrize("files", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("placed", ["cache", "dest", "hf-cache"])
async def test_both_files_are_fetched_if_the_filesystem_tells_them_apart(
    origin: Origin, fetch: Fetcher, files: dict[str, bytes], placed: str, tmp_path: Path
) -> None:
    origin.add_repo("org/model", files)
    options: dict[str, dict[str, Any]] = {"dest": {"dest": tmp_path / "dest"}, "hf-cache": {"layout": "hf-cache"}}
    artifact = await fetch(**options.get(placed, {}))
    assert contents(artifact.path) == files


@pytest.mark.parametrize("files", ALIKE.values(), ids=ALIKE)
async def test_colliding_names_are_reported_and_nothing_is_fetched(
    origin: Origin, fetch: Fetcher, files: dict[str, bytes], folding: Path
) -> None:
    origin.add_repo("org/model", files)
    with pytest.raises(CannotWrite, match="--exclude") as caught:
        await fetch(cache_dir=folding)
    for path in files:
        assert ascii(path.partition("/")[0]) in caught.value.message
    assert not [request for request in origin.requests if "/resolve/" in request.path]


@pytest.mark.parametrize("files", ALIKE.values(), ids=ALIKE)
async def test_excluding_one_of_two_colliding_names_fetches_the_rest(
    origin: Origin, fetch: Fetcher, files: dict[str, bytes], folding: Path
) -> None:
    origin.add_repo("org/model", files)
    kept, other = files
    artifact = await fetch(cache_dir=folding, exclude=(other,))
    assert (artifact.path / kept).read_bytes() == files[kept]


@pytest.mark.parametrize("path", ["a:b.json", "a:b/config.json"])
async def test_a_name_that_the_filesystem_cannot_store_is_reported_and_not_retried(
    origin: Origin, fetch: Fetcher, folding: Path, path: str
) -> None:
    origin.add_repo("org/model", {"config.json": b"{}", path: b"{}"})
    with pytest.raises(CannotWrite, match="--exclude") as caught:
        await fetch(cache_dir=folding)
    assert ascii(path) in caught.value.message
    assert contents((await fetch(cache_dir=folding, exclude=("a:*",))).path) == {"config.json": b"{}"}


@pytest.mark.parametrize("path", ["../escape", "back\\slash", "config.json/x", ".fetcher/manifest.json", "\udcff"])
async def test_a_hostile_path_outside_the_selection_is_ignored(origin: Origin, fetch: Fetcher, path: str) -> None:
    origin.add_repo("org/model", {"config.json": b"{}", "a:b.json": b"{}"})
    origin.faults.add(Fault(extra_files(path), path="/tree/"))
    artifact = await fetch(exclude=(path,))
    assert contents(artifact.path) == {"config.json": b"{}", "a:b.json": b"{}"}


async def test_a_plan_refuses_hostile_paths_in_the_selection_only(origin: Origin, tmp_path: Path) -> None:
    origin.add_repo("org/model", {"config.json": b"{}"})
    origin.faults.add(Fault(extra_files("../escape"), path="/tree/"))
    with pytest.raises(HostilePath):
        await preview(ArtifactRef("hf://org/model"), Settings(cache_dir=tmp_path))
    shown = await preview(ArtifactRef("hf://org/model", exclude=("../*",)), Settings(cache_dir=tmp_path))
    assert [(file.path, file.state) for file in shown.files] == [("config.json", "fetch"), ("../escape", "skipped")]


async def test_a_file_listed_twice_is_one_file(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"config.json": b"{}"})
    listed = extra_files("twice", size=0, oid="e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")
    origin.add_repo("org/model", {"config.json": b"{}", "twice": b""})
    origin.faults.add(Fault(listed, path="/tree/"))
    artifact = await fetch()
    assert contents(artifact.path) == {"config.json": b"{}", "twice": b""}


async def test_a_file_listed_with_two_contents_is_refused(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"config.json": b"{}"})
    origin.faults.add(Fault(extra_files("config.json"), path="/tree/"))
    with pytest.raises(DigestMismatch, match="twice, with different contents"):
        await fetch()


async def test_a_pattern_without_a_match_is_a_warning(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"config.json": b"{}", "Q4/m.gguf": b"GGUF"})
    artifact = await fetch(include=("*.json", "m.gguf"))
    assert contents(artifact.path) == {"config.json": b"{}"}
    (message,) = [event.message for event in fetch.events if isinstance(event, Warned)]
    assert message == "--include 'm.gguf' matches no file: a pattern is compared with the whole path, write '*/m.gguf'"
