"""`loader copy` over an earlier copy: it replaces only copies, and copies only changed files."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from fetcher.errors import CannotWrite, NewerFormat, OutOfSpace
from fetcher.events import BytesLoaded, Event, LoadPlanned
from fetcher.testing.checkpoint import make_checkpoint
from loader.copying.copy import Copy, copy
from loader.copying.record import RECORD, CopyRecord
from loader.copying.staging import staged
from loader.errors import TooLarge
from tests.lab.cgroups import in_group
from tests.lab.command import run_loader
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import MiB, add_manifest
from tests.loader.test_copy import contents, damage

pytestmark = pytest.mark.page_cache

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two shards of 4 MiB and their other files, without a manifest."""
    return make_checkpoint(tmp_path / "source", shards=2, shard_size=4 * MiB)


@pytest.fixture
def listed(plain: Path) -> Path:
    """The files of `plain`, with a manifest of 1 MiB chunks."""
    add_manifest(plain)
    return plain


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "ram" / "model"


def copied(source: Path, target: Path) -> tuple[Copy, set[str]]:
    """Return the result, and the paths of the files that were copied."""
    events: list[Event] = []
    result = copy(source, target, threads=2, on_event=events.append)
    return result, {event.path for event in events if isinstance(event, BytesLoaded)}


def inode(path: Path) -> int:
    return path.stat().st_ino


class TestEarlierCopies:
    def test_an_earlier_copy_without_a_manifest_is_replaced(self, plain: Path, target: Path) -> None:
        copied(plain, target)
        damage(plain / SECOND, 2 * MiB)
        done = run_loader("copy", plain, target)
        assert done.returncode == 0, done.stderr
        assert contents(target) == contents(plain)

    def test_a_file_that_was_removed_from_the_source_is_removed_from_the_copy(self, plain: Path, target: Path) -> None:
        copied(plain, target)
        (plain / "config.json").unlink()
        assert copied(plain, target)[0].cached is False
        assert contents(target) == contents(plain)

    def test_an_earlier_copy_is_replaced_even_if_the_source_lost_its_manifest(self, listed: Path, target: Path) -> None:
        copied(listed, target)
        shutil.rmtree(listed / ".fetcher")
        damage(listed / SECOND, 0)
        copied(listed, target)
        assert contents(target) == contents(listed)

    def test_the_record_names_the_source_of_each_file(self, plain: Path, target: Path) -> None:
        copied(plain, target)
        document = json.loads((target / RECORD).read_text())
        assert document["format_version"] == 1
        entry = next(file for file in document["files"] if file["path"] == FIRST)
        status = (plain / FIRST).stat()
        assert entry == {
            "path": FIRST,
            "device": status.st_dev,
            "inode": status.st_ino,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        }

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format_version": 1}', b'{"format_version": 1, "files": [1]}'])
    def test_a_directory_with_an_invalid_record_is_not_a_copy(self, plain: Path, target: Path, content: bytes) -> None:
        (target / RECORD).parent.mkdir(parents=True)
        (target / RECORD).write_bytes(content)
        with pytest.raises(CannotWrite, match="is not a copy of an artifact"):
            copied(plain, target)

    def test_a_pipe_in_place_of_the_record_is_refused_without_waiting(self, plain: Path, target: Path) -> None:
        (target / RECORD).parent.mkdir(parents=True)
        os.mkfifo(target / RECORD)
        with pytest.raises(CannotWrite, match="is not a copy of an artifact"):
            copied(plain, target)

    def test_the_record_of_a_later_version_is_refused(self, plain: Path, target: Path) -> None:
        (target / RECORD).parent.mkdir(parents=True)
        (target / RECORD).write_text('{"format_version": 2, "version": "9.0"}')
        with pytest.raises(NewerFormat, match=r"weightlift 9\.0"):
            copied(plain, target)
        assert CopyRecord.read(plain) is None


def plant(kind: str, path: Path, elsewhere: Path) -> None:
    match kind:
        case "link":
            path.symlink_to(elsewhere)
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)


class TestUnchangedFiles:
    @pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "record"])
    def test_unchanged_files_are_not_copied_again(self, plain: Path, target: Path, manifest: bool) -> None:
        add_manifest(plain) if manifest else None
        copied(plain, target)
        before = inode(target / FIRST)
        damage(plain / SECOND, 2 * MiB)
        add_manifest(plain, revision="2") if manifest else None
        assert copied(plain, target)[1] == {SECOND}
        assert inode(target / FIRST) == before
        assert contents(target) == contents(plain)

    def test_unchanged_files_take_no_space(self, plain: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=13 * MiB).path / "model"
        copied(plain, place)
        damage(plain / SECOND, 2 * MiB)
        copied(plain, place)
        assert contents(place) == contents(plain)

    def test_unchanged_files_count_as_held(self, listed: Path, target: Path) -> None:
        copied(listed, target)
        (target / FIRST).unlink()
        events: list[Event] = []
        copy(listed, target, threads=2, on_event=events.append)
        plan = next(event for event in events if isinstance(event, LoadPlanned))
        assert plan.total - plan.held == (listed / FIRST).stat().st_size
        assert sum(event.bytes for event in events if isinstance(event, BytesLoaded)) == plan.total - plan.held

    def test_a_damaged_file_is_copied_again_and_its_readers_keep_the_old_content(self, listed: Path, target: Path) -> None:
        copied(listed, target)
        damage(target / FIRST, 3 * MiB)
        (target / SECOND).unlink()
        with (target / FIRST).open("rb") as reader:
            damaged = (target / FIRST).read_bytes()
            assert copied(listed, target)[1] == {FIRST, SECOND}
            assert reader.read() == damaged
        assert contents(target) == contents(listed)

    def test_a_modified_file_is_copied_again(self, plain: Path, target: Path) -> None:
        copied(plain, target)
        damage(target / FIRST, 3 * MiB)
        assert FIRST in copied(plain, target)[1]
        assert contents(target) == contents(plain)

    def test_a_file_that_others_can_write_to_is_copied_again(self, listed: Path, target: Path) -> None:
        copied(listed, target)
        (target / FIRST).chmod(0o666)
        (target / SECOND).unlink()
        assert copied(listed, target)[1] == {FIRST, SECOND}
        assert (target / FIRST).stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("planted", ["link", "directory", "pipe"])
    def test_a_link_directory_or_pipe_is_not_reused(self, listed: Path, target: Path, planted: str) -> None:
        copied(listed, target)
        (target / FIRST).unlink()
        plant(planted, target / FIRST, listed / FIRST)
        (target / SECOND).unlink()
        copied(listed, target)
        assert (target / FIRST).is_file()
        assert not (target / FIRST).is_symlink()
        assert contents(target) == contents(listed)

    def test_without_hard_links_all_files_are_copied(self, listed: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copied(listed, target)
        damage(listed / SECOND, 0)
        add_manifest(listed, revision="2")

        def refused(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
        assert {FIRST, SECOND} <= copied(listed, target)[1]
        assert contents(target) == contents(listed)

    def test_a_damaged_source_leaves_the_earlier_copy_unchanged(self, listed: Path, target: Path) -> None:
        copied(listed, target)
        before = contents(target)
        (target / SECOND).unlink()
        damage(listed / SECOND, MiB)
        done = run_loader("copy", listed, target)
        assert done.returncode == 65
        before.pop(SECOND)
        assert contents(target) == before


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A repository in a Hub cache: one blob with two revisions."""
    root = tmp_path / "models--org--model"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / "abc").write_bytes(os.urandom(4 * MiB))
    for revision in ("1", "2"):
        (root / "snapshots" / revision).mkdir(parents=True)
        (root / "snapshots" / revision / "model.safetensors").symlink_to("../../blobs/abc")
    return root


class TestNamesOfOneFile:
    NAMES = ("blobs/abc", "snapshots/1/model.safetensors", "snapshots/2/model.safetensors")

    def test_a_blob_of_a_hub_cache_is_copied_once(self, hub: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=6 * MiB).path / "model"
        result, _ = copied(hub, place)
        assert len({inode(place / name) for name in self.NAMES}) == 1
        assert (place / self.NAMES[2]).read_bytes() == (hub / "blobs" / "abc").read_bytes()
        assert (result.files, result.bytes) == (3, 4 * MiB)

    def test_a_new_revision_takes_no_space_for_shared_blobs(self, hub: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=6 * MiB).path / "model"
        copied(hub, place)
        (hub / "snapshots" / "3").mkdir()
        (hub / "snapshots" / "3" / "model.safetensors").symlink_to("../../blobs/abc")
        assert copied(hub, place)[1] == set()
        assert (place / "snapshots" / "3" / "model.safetensors").read_bytes() == (hub / "blobs" / "abc").read_bytes()

    def test_different_files_with_equal_content_stay_different_files(self, hub: Path, target: Path) -> None:
        shutil.copy(hub / "blobs" / "abc", hub / "blobs" / "twin")
        copied(hub, target)
        assert inode(target / "blobs" / "abc") != inode(target / "blobs" / "twin")

    def test_without_hard_links_each_name_becomes_a_file(
        self, hub: Path, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(errno.EMLINK, "too many links")

        monkeypatch.setattr(os, "link", refused)
        copied(hub, target)
        assert len({inode(target / name) for name in self.NAMES}) == 3
        assert len({(target / name).read_bytes() for name in self.NAMES}) == 1


def abandon(stage: Path, size: int) -> None:
    (stage / "data").mkdir(parents=True)
    (stage / "data" / "model.safetensors").write_bytes(os.urandom(size))


class TestAbandonedCopies:
    def test_an_abandoned_copy_is_named_with_its_size_and_the_command_to_remove_it(
        self, plain: Path, small_filesystem: MakeFilesystem
    ) -> None:
        place = small_filesystem("tmpfs", size=10 * MiB).path
        abandon(place / ".other model.copying", 3 * MiB)
        with pytest.raises(OutOfSpace) as caught:
            copied(plain, place / "model")
        command = f"rm -r {shlex.quote(str(place / '.other model.copying'))}"
        assert caught.value.message.endswith(f"; a killed copy left 3.0 MiB there: {command}")

    def test_an_abandoned_copy_is_named_if_memory_is_short(self, plain: Path, cgroup: Path) -> None:
        large = make_checkpoint(plain.parent / "large", shards=2, shard_size=48 * MiB)
        place = Path("/dev/shm") / f"weightlift-{os.getpid()}"  # noqa: S108
        try:
            abandon(place / ".other.copying", MiB)
            done = run_loader("copy", large, place / "model", within=in_group(cgroup))
        finally:
            shutil.rmtree(place)
        assert done.returncode == TooLarge.exit_code
        assert f"rm -r {place}/.other.copying" in done.stderr

    def test_an_abandoned_copy_is_named_if_space_runs_out_during_the_copy(
        self, plain: Path, small_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("loader.copying.copy.refuse_lack_of_space", lambda *_, **__: None)
        place = small_filesystem("tmpfs", size=6 * MiB).path
        abandon(place / ".other.copying", MiB)
        with pytest.raises(OutOfSpace, match=r"left 1\.0 MiB there: rm -r "):
            copied(plain, place / "model")

    def test_a_running_copy_is_not_named(self, plain: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=6 * MiB).path
        with staged(place / "other", on_wait=lambda: None), pytest.raises(OutOfSpace) as caught:
            copied(plain, place / "model")
        assert "rm -r" not in caught.value.message

    def test_a_name_with_control_characters_is_not_shown(self, plain: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=6 * MiB).path
        abandon(place / ".\x1b[2J.copying", MiB)
        with pytest.raises(OutOfSpace) as caught:
            copied(plain, place / "model")
        assert "\x1b" not in caught.value.message

    def test_the_command_in_the_message_frees_the_space(self, plain: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=10 * MiB).path
        abandon(place / ".other.copying", 3 * MiB)
        message = run_loader("copy", plain, place / "model").stderr
        shutil.rmtree(shlex.split(message.rpartition("rm -r ")[2])[0])
        assert run_loader("copy", plain, place / "model").returncode == 0
