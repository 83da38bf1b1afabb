"""On a filesystem that takes two names for one, a foreign file is not replaced by a file of another spelling."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.errors import CannotWrite
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents

KEY = ArtifactRef("hf://org/model").key
COMPOSED, DECOMPOSED = "caf\u00e9.md", "cafe\u0301.md"
THEIRS = {
    "case": ("readme.md", "README.md"),
    "case of the weights": ("MODEL.SAFETENSORS", "model.safetensors"),
    "Unicode form": (DECOMPOSED, COMPOSED),
    "Unicode form, the other way": (COMPOSED, DECOMPOSED),
    "case of a directory": ("Docs/theirs.txt", "docs/ours.txt"),
    "case of a directory below": ("docs/API/theirs.txt", "docs/api/ours.txt"),
    "case in a directory of that name": ("docs/A.txt", "docs/a.txt"),
    "a directory in the place of a file": ("Notes/theirs.txt", "notes"),
}


@pytest.mark.parametrize(("theirs", "ours"), THEIRS.values(), ids=THEIRS)
async def test_a_foreign_file_stays_and_both_names_are_reported(
    origin: Origin, fetch: Fetcher, theirs: str, ours: str, preserving: Path
) -> None:
    origin.add_repo("org/model", {"config.json": b"{}", ours: b"ours"})
    (preserving / theirs).parent.mkdir(parents=True, exist_ok=True)
    (preserving / theirs).write_bytes(b"theirs")
    with pytest.raises(CannotWrite, match=r"Move .* away") as caught:
        await fetch(dest=preserving)
    assert ascii(theirs.partition("/")[0])[1:-1] in caught.value.message
    assert contents(preserving) == {theirs: b"theirs"}
    assert not [request for request in origin.requests if "/resolve/" in request.path]
    await fetch(dest=preserving, exclude=(ours,))
    assert contents(preserving) == {theirs: b"theirs", "config.json": b"{}"}


@pytest.mark.parametrize("target", ["elsewhere", "absent"])
async def test_a_foreign_link_stays(origin: Origin, fetch: Fetcher, preserving: Path, target: str) -> None:
    origin.add_repo("org/model", {"README.md": b"ours"})
    (preserving / "elsewhere").write_bytes(b"theirs")
    (preserving / "readme.md").symlink_to(target)
    with pytest.raises(CannotWrite, match=r"readme\.md"):
        await fetch(dest=preserving)
    assert os.readlink(preserving / "readme.md") == target
    assert (preserving / "elsewhere").read_bytes() == b"theirs"


async def test_a_foreign_file_in_a_keyed_directory_stays(origin: Origin, fetch: Fetcher, preserving: Path) -> None:
    origin.add_repo("org/model", {"README.md": b"ours"})
    (preserving / KEY).mkdir()
    (preserving / KEY / "readme.md").write_bytes(b"theirs")
    with pytest.raises(CannotWrite, match=r"readme\.md"):
        await fetch(cache_dir=preserving)
    assert contents(preserving / KEY) == {"readme.md": b"theirs"}


async def test_a_foreign_file_created_during_the_fetch_stays(origin: Origin, fetch: Fetcher, preserving: Path) -> None:
    origin.add_repo("org/model", {"README.md": b"ours"})

    def step(name: str) -> None:
        if name == "sealing":
            (preserving / "readme.md").write_bytes(b"theirs")

    with pytest.raises(CannotWrite, match=r"readme\.md"):
        await fetch(dest=preserving, step=step)
    assert contents(preserving) == {"readme.md": b"theirs"}


@pytest.mark.parametrize(("before", "after"), THEIRS.values(), ids=THEIRS)
async def test_our_file_of_the_previous_version_is_replaced(
    origin: Origin, fetch: Fetcher, before: str, after: str, destination: Path
) -> None:
    """A publisher renames a file by case only, with the same content, and changes another file."""
    repository = origin.add_repo("org/model", {"config.json": b"{}", before: b"same"})
    await fetch(dest=destination)
    newer = {"config.json": b"[]", after: b"same"}
    origin.update_repo(repository, newer)
    await fetch(dest=destination, refresh="on-change")
    assert {path: (destination / path).read_bytes() for path in newer} == newer
    assert len(contents(destination)) == len(newer)


async def test_our_file_of_the_same_version_is_not_foreign(origin: Origin, fetch: Fetcher, destination: Path) -> None:
    """Also if the filesystem changes the spelling of our names."""
    files = {"README.md": b"one", "Docs/A.txt": b"two", COMPOSED: b"three", "config.json": b"{}"}
    repository = origin.add_repo("org/model", files)
    await fetch(dest=destination)
    newer = {**files, "README.md": b"changed"}
    origin.update_repo(repository, newer)
    await fetch(dest=destination, refresh="on-change")
    assert {path: (destination / path).read_bytes() for path in newer} == newer


@pytest.mark.parametrize(("theirs", "ours"), list(THEIRS.values())[:4], ids=list(THEIRS)[:4])
async def test_both_files_exist_if_the_filesystem_tells_their_names_apart(
    origin: Origin, fetch: Fetcher, theirs: str, ours: str, tmp_path: Path
) -> None:
    origin.add_repo("org/model", {ours: b"ours"})
    directory = tmp_path / "dest"
    directory.mkdir()
    (directory / theirs).write_bytes(b"theirs")
    await fetch(dest=directory)
    assert contents(directory) == {theirs: b"theirs", ours: b"ours"}


@pytest.mark.parametrize(("before", "after"), [("notes/deep/a.txt", "notes"), ("notes", "notes/deep/a.txt")])
async def test_a_file_can_become_a_directory_and_a_directory_a_file(
    origin: Origin, fetch: Fetcher, before: str, after: str, tmp_path: Path
) -> None:
    repository = origin.add_repo("org/model", {"config.json": b"{}", before: b"before"})
    directory = tmp_path / "dest"
    await fetch(dest=directory)
    newer = {"config.json": b"[]", after: b"after"}
    origin.update_repo(repository, newer)
    await fetch(dest=directory, refresh="on-change")
    assert contents(directory) == newer
