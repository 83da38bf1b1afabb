"""Another user of the volume plants links where archives are unpacked or links are created: they are never followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher.archives.members import Extraction
from fetcher.archives.streams import Readable
from fetcher.dropins import storage_initializer
from fetcher.dropins.linking import link
from fetcher.errors import CannotWrite, FetchError
from fetcher.store import beneath
from fetcher.store.layout import Root
from fetcher.testing.origin import Origin
from tests.dropins.archives import FORMATS, regular, tar, tar_of, unpack
from tests.dropins.conftest import FILES, tree
from tests.store.test_planted_links import Outside

PLACES = [
    ".fetcher", ".fetcher/staging", ".fetcher/archive", ".fetcher/archive/in-place", ".fetcher/archive/in-place/fetched",
    ".fetcher/archive/in-place/unpacked", ".fetcher/archive/in-place/fetched/.fetcher",
    ".fetcher/archive/in-place/fetched/.fetcher/staging", ".fetcher/archive/in-place/fetched/.fetcher/manifests",
]  # fmt: skip


@pytest.fixture(params=["openat2", "ENOSYS"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "openat2":
        monkeypatch.setattr(beneath, "_OPENAT2", None)


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path / "outside")


@pytest.fixture
def planting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], None]:
    """Return a function that makes another user change the unpacking directory after its first member."""

    def during(change: Callable[[Path], None]) -> None:
        unchanged = Extraction.add

        def add(self: Extraction, name: str, size: int, content: Readable) -> None:
            unchanged(self, name, size, content)
            if len(self.files) == 1:
                change(self._directory)

        monkeypatch.setattr(Extraction, "add", add)

    return during


def initialized(*words: str | Path) -> int:
    return storage_initializer.main([str(word) for word in words])


@pytest.mark.parametrize("place", PLACES)
def test_a_link_planted_before_a_fetch_is_not_followed(place: str, origin: Origin, outside: Outside, tmp_path: Path) -> None:
    planted = tmp_path / "models" / place
    planted.parent.mkdir(parents=True)
    planted.symlink_to(outside.path)
    address = origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES))
    if initialized(address, tmp_path / "models") == 0:
        assert tree(tmp_path / "models") == FILES
    outside.assert_untouched()


@pytest.mark.parametrize("place", ["archive", "archive/in-place", "archive/in-place/fetched", "archive/in-place/unpacked"])
def test_a_link_planted_during_unpacking_is_not_followed(
    place: str, origin: Origin, outside: Outside, planting: Callable[[Callable[[Path], None]], None], tmp_path: Path
) -> None:
    """Neither later writes nor the final removal follow the link."""
    models = tmp_path / "models"

    def plant(directory: Path) -> None:
        (outside.path / directory.name).mkdir(exist_ok=True)
        planted = models / ".fetcher" / place
        planted.rename(models / ".fetcher" / "moved")
        planted.symlink_to(outside.path)
        outside.look_again()

    planting(plant)
    initialized(origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES)), models)
    outside.assert_untouched()


def test_a_link_in_place_of_a_directory_of_the_archive_is_not_followed(
    outside: Outside, planting: Callable[[Callable[[Path], None]], None], tmp_path: Path
) -> None:
    planting(lambda directory: (directory / "deep").symlink_to(outside.path))
    archive, directory = tmp_path / "archive", tmp_path / "in"
    directory.mkdir()
    archive.write_bytes(tar_of([regular("first", b"1"), regular("deep/new", b"2")]))
    with pytest.raises(FetchError):
        unpack(archive, directory)
    outside.assert_untouched()


@pytest.mark.parametrize("name", ["later", "first"])
def test_a_file_outside_the_directory_is_never_published(
    name: str, origin: Origin, outside: Outside, planting: Callable[[Callable[[Path], None]], None], tmp_path: Path
) -> None:
    """The user who plants a link may lack access to its target, while the fetching user has it."""

    def plant(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(outside.path / "theirs")

    planting(plant)
    archive = tar({"first": b"1", "second": b"2"})
    assert initialized(origin.add_file("/model.tar", archive), tmp_path / "models") == (0 if name == "later" else 73)
    assert "theirs" not in tree(tmp_path / "models").values()
    outside.assert_untouched()


def test_an_archive_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(tar(FILES))
    (tmp_path / "archive").symlink_to(tmp_path / "secret")
    (tmp_path / "in").mkdir()
    with pytest.raises(FetchError):
        unpack(tmp_path / "archive", tmp_path / "in")
    assert tree(tmp_path / "in") == {}


class TestLinking:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        (tmp_path / "claim").mkdir()
        (tmp_path / "claim" / "theirs").write_text("weights")
        return tmp_path / "claim" / "theirs"

    def test_a_link_to_another_file_is_replaced_and_its_target_stays(
        self, source: Path, outside: Outside, tmp_path: Path
    ) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "theirs").symlink_to(outside.path / "theirs")
        link([source], tmp_path / "models")
        assert tree(tmp_path / "models") == {"theirs": f"-> {source}"}
        outside.assert_untouched()

    def test_a_link_to_a_directory_is_replaced_and_not_entered(self, source: Path, outside: Outside, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "theirs").symlink_to(outside.path)
        link([source], tmp_path / "models")
        assert tree(tmp_path / "models") == {"theirs": f"-> {source}"}
        outside.assert_untouched()

    @pytest.mark.parametrize("occupy", [Path.mkdir, Path.touch, os.mkfifo])
    def test_only_links_are_replaced(self, occupy: Callable[[Path], None], source: Path, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        occupy(tmp_path / "models" / "theirs")
        before = (tmp_path / "models" / "theirs").lstat().st_ino
        with pytest.raises(CannotWrite, match="exists and is not"):
            link([source], tmp_path / "models")
        assert (tmp_path / "models" / "theirs").lstat().st_ino == before
        assert os.listdir(tmp_path / "models") == ["theirs"]

    def test_a_destination_directory_can_be_a_link(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "models").symlink_to(tmp_path / "real")
        link([source], tmp_path / "models")
        assert tree(tmp_path / "real") == {"theirs": f"-> {source}"}


def test_archives_are_unpacked_below_the_private_directory(
    origin: Origin, planting: Callable[[Callable[[Path], None]], None], tmp_path: Path
) -> None:
    seen: list[Path] = []
    planting(seen.append)
    initialized(origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES)), tmp_path / "models")
    assert [path.parents[1] for path in seen] == [Root(tmp_path / "models").archive / "in-place/unpacked"]
