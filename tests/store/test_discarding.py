"""Directories of a root that another tool made are moved away, and deleted after the grace period of replaced versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher import cache
from fetcher.artifact import ArtifactRef
from fetcher.errors import CannotWrite, InUse
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.keyed import GRACE, replaced_versions
from fetcher.store.layout import Root

KEY = "0123456789abcdef"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A directory with the name of a key, as another tool leaves it."""
    place = tmp_path / KEY
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "model.bin").write_bytes(b"bytes")
    return place


def test_it_is_gone_at_once_and_kept_for_the_grace_period(tmp_path: Path, foreign: Path) -> None:
    assert cache.discard(tmp_path, KEY)

    assert not foreign.exists()
    (kept,) = Root(tmp_path).old.iterdir()
    assert (kept / "sub" / "model.bin").read_bytes() == b"bytes"
    now = kept.stat().st_ctime
    assert replaced_versions(tmp_path, now=now + GRACE / 2) == []
    assert replaced_versions(tmp_path, now=now + GRACE + 5) == [kept]


def test_of_a_directory_that_is_not_there_nothing_happens(tmp_path: Path) -> None:
    assert not cache.discard(tmp_path, KEY)


@pytest.mark.parametrize("name", ["..", ".fetcher", "sub/dir", "0123456789ABCDEF", "0123456789abcde", f"{KEY}\n"])
def test_a_name_that_is_no_key_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotWrite, match="has not the name of a cache key"):
        cache.discard(tmp_path, name)


def test_an_artifact_of_ours_is_refused(tmp_path: Path, foreign: Path) -> None:
    (foreign / ".fetcher").mkdir()
    manifest = Manifest.for_request(ArtifactRef("hf://org/m"), revision="main", files=(), created="", version="")
    (foreign / RELATIVE_PATH).write_bytes(manifest.to_bytes())

    with pytest.raises(CannotWrite, match=f"is an artifact; remove it with fetcher rm {KEY}"):
        cache.discard(tmp_path, KEY)
    assert foreign.exists()


def test_a_directory_with_an_open_file_is_refused(tmp_path: Path, foreign: Path) -> None:
    with (foreign / "sub" / "model.bin").open("rb"), pytest.raises(InUse, match="has files that are open"):
        cache.discard(tmp_path, KEY)

    assert cache.discard(tmp_path, KEY)


def test_a_link_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.symlink(elsewhere, tmp_path / KEY)

    with pytest.raises(CannotWrite, match="is a link"):
        cache.discard(tmp_path, KEY)
    assert elsewhere.exists()
