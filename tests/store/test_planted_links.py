"""A member of the volume's group plants links where we write. None below a root or a destination is followed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine import fetch
from fetcher.errors import CannotWrite
from fetcher.settings import Settings
from fetcher.store import beneath
from fetcher.store.layout import Root
from fetcher.testing.origin import Origin

FILES = {"config.json": b"{}", "sub/model.safetensors": b"weights", "sub/deeper/notes.txt": b"notes"}
NEWER = {**FILES, "config.json": b"[]", "sub/model.safetensors": b"other weights"}
REF = ArtifactRef("hf://org/model")

LAYOUTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "keyed": lambda root: {"cache_dir": root},
    "in place": lambda root: {"cache_dir": root, "dest": root},
    "hf-cache": lambda root: {"cache_dir": root, "layout": "hf-cache"},
}
PLACES = [name for name, kind in vars(Root).items() if isinstance(kind, property)]
"""Every directory that the layout names, so that a new directory is tested too."""


@pytest.fixture(params=["openat2", "ENOSYS"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "openat2":
        monkeypatch.setattr(beneath, "_OPENAT2", None)


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin() as running:
        running.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


class Outside:
    """A foreign directory whose files must not change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700)
        (path / "deeper").mkdir()
        for name in ("theirs", "model.safetensors", "notes.txt", "deeper/notes.txt"):
            (path / name).write_text("theirs")
            (path / name).chmod(0o600)
        self.look_again()

    def look_again(self) -> None:
        """Record the present state as the one that must not change."""
        self._before = self._state()

    def assert_untouched(self) -> None:
        assert self._state() == self._before

    def _state(self) -> list[tuple[str, int, int]]:
        return sorted(
            (str(each), os.lstat(each).st_mode, os.lstat(each).st_mtime_ns) for each in (self.path, *self.path.rglob("*"))
        )


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


def fetched(settings: dict[str, Any], **more: Any) -> bool:
    """Whether the artifact was published. A refusal to write is correct too."""
    try:
        asyncio.run(fetch(REF, Settings(**settings, **more)))
    except CannotWrite:
        return False
    return True


@pytest.mark.usefixtures("kernel", "origin")
@pytest.mark.parametrize("layout", LAYOUTS)
class TestPlantedLinks:
    @pytest.mark.parametrize("place", PLACES)
    def test_a_link_that_replaces_a_private_directory_is_not_followed(
        self, layout: str, place: str, origin: Origin, outside: Outside, tmp_path: Path
    ) -> None:
        settings = LAYOUTS[layout](tmp_path / "root")
        planted: Path = getattr(Root(tmp_path / "root"), place)
        planted.parent.mkdir(parents=True)
        planted.symlink_to(outside.path)
        fetched(settings)
        outside.assert_untouched()
        origin.update_repo(origin.add_repo("org/model", FILES), NEWER)
        fetched(settings, refresh="on-change")
        outside.assert_untouched()

    @pytest.mark.parametrize("target", ["theirs", "."])
    def test_a_link_that_replaces_the_usage_record_is_not_followed(
        self, layout: str, target: str, outside: Outside, tmp_path: Path
    ) -> None:
        usage = tmp_path / "root" / ".fetcher" / "usage"
        usage.mkdir(parents=True)
        (usage / REF.key).symlink_to(outside.path / target)
        assert fetched(LAYOUTS[layout](tmp_path / "root"))
        outside.assert_untouched()

    @pytest.mark.parametrize("newer", [NEWER, {"config.json": b"[]"}], ids=["written", "deleted"])
    @pytest.mark.parametrize("name", ["sub", "sub/deeper"])
    def test_a_link_that_replaces_a_directory_of_the_artifact_is_not_followed(
        self, layout: str, name: str, newer: dict[str, bytes], origin: Origin, outside: Outside, tmp_path: Path
    ) -> None:
        settings = LAYOUTS[layout](tmp_path / "root")
        artifact = asyncio.run(fetch(REF, Settings(**settings)))
        planted = artifact.path / name
        for path in sorted(planted.rglob("*"), reverse=True):
            path.unlink() if not path.is_dir() else path.rmdir()
        planted.rmdir()
        planted.symlink_to(outside.path)
        origin.update_repo(origin.add_repo("org/model", FILES), newer)
        fetched(settings, refresh="on-change")
        outside.assert_untouched()

    def test_a_link_that_replaces_a_published_file_is_not_followed(
        self, layout: str, origin: Origin, outside: Outside, tmp_path: Path
    ) -> None:
        settings = LAYOUTS[layout](tmp_path / "root")
        artifact = asyncio.run(fetch(REF, Settings(**settings)))
        (artifact.path / "config.json").unlink()
        (artifact.path / "config.json").symlink_to(outside.path / "theirs")
        origin.update_repo(origin.add_repo("org/model", FILES), NEWER)
        assert fetched(settings, refresh="on-change")
        outside.assert_untouched()


@pytest.mark.usefixtures("origin")
def test_links_above_the_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "volume").symlink_to(tmp_path / "real")
    for layout, settings_for in LAYOUTS.items():
        assert fetched(settings_for(tmp_path / "volume" / layout))
