"""`loader copy` makes a complete and verified copy, or none, whatever is damaged, full, killed or running at the same time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import CannotWrite, DigestMismatch, NotFound, OutOfSpace, UsageError
from fetcher.events import Event, silent
from fetcher.host.memory import Bound, MemoryLeft
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.testing.checkpoint import make_checkpoint
from loader.checkpoint.files import FileIdentity
from loader.cli import main
from loader.copying import copy as copying
from loader.copying import shortage
from loader.copying.artifacts import Item, read_artifact
from loader.copying.chunks import ChunkCopier, round_robin
from loader.copying.copy import Copy, copy
from loader.copying.staging import stage_of, staged
from loader.errors import FileReplaced, MalformedCheckpoint, TooLarge
from tests.cli.conftest import last_line
from tests.lab.availability import require_root
from tests.lab.command import end, run_fetcher, run_loader, started_loader
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import NOBODY, MiB, add_manifest, in_child, run_loader_as_nobody

pytestmark = pytest.mark.page_cache

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An artifact of two shards of 4 MiB, with a manifest of 1 MiB chunks."""
    made = make_checkpoint(tmp_path / "source", shards=2, shard_size=4 * MiB)
    (made / "onnx").mkdir()
    (made / "onnx" / "config.json").write_text("{}")
    (made / "empty").touch()
    add_manifest(made)
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "ram" / "model"


def copied(source: Path, target: Path, threads: int = 3) -> Copy:
    return copy(source, target, threads=threads, on_event=silent)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and ".fetcher" not in path.parts
    }


def leaves_nothing(target: Path) -> bool:
    return not target.exists() and not stage_of(target).exists()


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


class TestCopy:
    def test_the_copy_has_the_same_files_and_manifest(self, source: Path, target: Path) -> None:
        result = copied(source, target)
        assert contents(target) == contents(source)
        assert Manifest.read(target / RELATIVE_PATH) == Manifest.read(source / RELATIVE_PATH)
        assert (result.verified, result.cached, result.revision, result.files) == (True, False, "1", 9)
        assert not stage_of(target).exists()
        assert run_fetcher("verify", target).returncode in (0, 65)  # 65: the fetcher does not accept chunks of 1 MiB

    def test_the_path_is_the_only_line_on_stdout(self, source: Path, target: Path, tmp_path: Path) -> None:
        done = run_loader("copy", source, target, "--termination-log", tmp_path / "log")
        assert (done.returncode, done.stdout) == (0, f"{target}\n")
        assert last_line(done.stderr).endswith("every chunk verified")
        message = json.loads((tmp_path / "log").read_text())
        assert (message["path"], message["revision"], message["cached"]) == (str(target), "1", False)
        again = json.loads(run_loader("copy", source, target, "--json").stdout)
        assert (again["cached"], again["verified"], again["source"]) == (True, True, str(source))

    def test_files_outside_the_manifest_are_not_copied(self, source: Path, target: Path) -> None:
        (source / "foreign").write_bytes(b"foreign")
        copied(source, target)
        assert not (target / "foreign").exists()

    def test_a_copy_without_a_manifest_is_reported_as_not_verified(self, source: Path, target: Path) -> None:
        shutil.rmtree(source / ".fetcher")
        (source / ".git").mkdir()
        (source / ".git" / "lfs").write_bytes(b"all weights again")
        done = run_loader("copy", source, target)
        assert done.returncode == 0
        assert "not verified" in last_line(done.stderr)
        assert sorted(contents(target)) == sorted(name for name in contents(source) if not name.startswith("."))
        assert copied(source, target).cached

    def test_a_snapshot_of_a_hub_cache_is_copied_by_the_manifest_of_the_cache(self, source: Path, tmp_path: Path) -> None:
        cache, target = tmp_path / "hub", tmp_path / "copy"
        snapshot = cache / "models--org--model" / "snapshots" / "1"
        (cache / ".fetcher" / "manifests").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        for name in contents(source):
            (snapshot / name).parent.mkdir(exist_ok=True)
            (snapshot / name).symlink_to(source / name)
        manifest = replace(add_manifest(source), snapshot=str(snapshot.relative_to(cache)))
        (cache / ".fetcher" / "manifests" / "key.json").write_bytes(manifest.to_bytes())
        assert copied(snapshot, target).verified
        assert contents(target) == contents(source)
        assert not any(path.is_symlink() for path in target.rglob("*"))
        assert copied(snapshot, target).cached

    @pytest.mark.parametrize("chunk_size", [1, 4096, 1000 * 1000, 64 * MiB])
    def test_chunks_may_have_any_size(self, tmp_path: Path, target: Path, chunk_size: int) -> None:
        (tmp_path / "source").mkdir()
        for size in (0, 1, 4095, 4096, 4097):
            (tmp_path / "source" / str(size)).write_bytes(os.urandom(size))
        add_manifest(tmp_path / "source", chunk_size=chunk_size)
        copied(tmp_path / "source", target)
        assert contents(target) == contents(tmp_path / "source")

    def test_a_newer_version_replaces_an_older_copy(self, source: Path, target: Path) -> None:
        copied(source, target)
        with (target / SHARD).open("rb") as reader:
            old = (source / SHARD).read_bytes()
            damage(source / SHARD, 2 * MiB)
            add_manifest(source, revision="2")
            assert copied(source, target).cached is False
            assert reader.read() == old, "an open file keeps its content"
        assert contents(target) == contents(source)
        assert [entry.name for entry in target.parent.iterdir()] == ["model"]

    def test_an_empty_directory_is_replaced(self, source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        copied(source, target)
        assert contents(target) == contents(source)

    def test_the_umask_does_not_change_the_modes(self, source: Path, target: Path) -> None:
        before = os.umask(0o077)
        try:
            copied(source, target)
        finally:
            os.umask(before)
        assert (target / SHARD).stat().st_mode & 0o777 == 0o644
        assert target.stat().st_mode & 0o777 == 0o755

    def test_a_copy_that_lost_a_file_is_made_again(self, source: Path, target: Path) -> None:
        copied(source, target)
        (target / SHARD).unlink()
        assert copied(source, target).cached is False
        assert contents(target) == contents(source)

    @pytest.mark.parametrize("kind", ["btrfs", "xfs"])
    def test_on_a_filesystem_with_clones_the_copy_shares_blocks_and_is_still_checked(
        self, kind: Any, small_filesystem: MakeFilesystem, source: Path
    ) -> None:
        volume = small_filesystem(kind, size=320 * MiB)
        cloneable = shutil.copytree(source, volume.path / "source")
        os.sync()
        before = volume.free()
        copied(cloneable, volume.path / "copy")
        os.sync()
        assert before - volume.free() < 4 * MiB
        assert contents(volume.path / "copy") == contents(source)
        damage(cloneable / SHARD, 3 * MiB)
        with pytest.raises(DigestMismatch, match=f"{SHARD}: chunk 3 "):
            copied(cloneable, volume.path / "another")


class TestDamage:
    def test_a_damaged_chunk_is_named_and_nothing_becomes_visible(self, source: Path, target: Path) -> None:
        damage(source / SHARD, 2 * MiB + 17)
        done = run_loader("copy", source, target)
        assert (done.returncode, done.stdout) == (65, "")
        assert last_line(done.stderr).startswith(
            f"DigestMismatch: {source / SHARD}: chunk 2 (from byte 2,097,152) has another digest"
        )
        assert leaves_nothing(target)

    def test_a_file_of_another_size_is_named_before_anything_is_copied(self, source: Path, target: Path) -> None:
        os.truncate(source / SHARD, 3 * MiB)
        with pytest.raises(DigestMismatch, match=f"{SHARD} has 3,145,728 bytes instead of "):
            copied(source, target)
        assert not target.parent.exists()

    def test_a_missing_file_is_named(self, source: Path, target: Path) -> None:
        (source / SHARD).unlink()
        with pytest.raises(NotFound, match=SHARD):
            copied(source, target)

    def test_a_damaged_manifest_is_refused(self, source: Path, target: Path) -> None:
        (source / RELATIVE_PATH).write_bytes(b"{")
        with pytest.raises(MalformedCheckpoint, match="not a valid manifest"):
            copied(source, target)

    @pytest.mark.parametrize("change", ["chunk_size", "chunks", "path"])
    def test_an_inconsistent_manifest_is_refused(self, source: Path, target: Path, change: str) -> None:
        manifest = add_manifest(source)
        first, *others = manifest.files
        broken = {
            "chunk_size": replace(manifest, chunk_size=0),
            "chunks": replace(manifest, files=(replace(first, chunks=("00", "00", "00")), *others)),
            "path": replace(manifest, files=(replace(first, path=".fetcher/manifest.json"), *others)),
        }
        (source / RELATIVE_PATH).write_bytes(broken[change].to_bytes())
        with pytest.raises(MalformedCheckpoint):
            copied(source, target)
        assert leaves_nothing(target)

    def test_a_source_that_is_replaced_during_the_copy_is_refused(self, source: Path, target: Path) -> None:
        shutil.rmtree(source / ".fetcher")

        def replace_source(_: Event) -> None:
            (source / "new").write_bytes(b"x" * (source / SHARD).stat().st_size)
            os.rename(source / "new", source / SHARD)

        with pytest.raises(FileReplaced):
            copy(source, target, threads=1, on_event=replace_source)
        assert leaves_nothing(target)


class TestSpace:
    def test_space_is_checked_before_the_first_byte(self, source: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=4 * MiB).path
        done = run_loader("copy", source, place / "model")
        assert done.returncode == 73
        assert last_line(done.stderr) == f"OutOfSpace: the copy needs 8.0 MiB, but {place} has 4.0 MiB free; free some space"
        assert list(place.iterdir()) == []

    def test_inodes_are_checked_before_the_first_byte(self, source: Path, small_filesystem: MakeFilesystem) -> None:
        place = small_filesystem("tmpfs", size=64 * MiB, inodes=8).path
        with pytest.raises(OutOfSpace, match="the copy has 9 files"):
            copied(source, place / "model")

    def test_memory_is_checked_if_the_filesystem_is_memory(
        self, source: Path, small_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bound = Bound(5 * MiB, "cgroup /pod")
        monkeypatch.setattr(shortage, "memory_left", lambda: MemoryLeft(bound, bound))
        place = small_filesystem("tmpfs", size=64 * MiB).path
        with pytest.raises(TooLarge, match=r"8\.0 MiB of memory, but 5\.0 MiB are left \(cgroup /pod\)"):
            copied(source, place / "model")

    def test_space_that_runs_out_during_the_copy_leaves_nothing(
        self, source: Path, small_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(copying, "refuse_lack_of_space", lambda *_, **__: None)
        place = small_filesystem("tmpfs", size=4 * MiB).path
        with pytest.raises(OutOfSpace):
            copied(source, place / "model")
        assert list(place.iterdir()) == []


class TestPlaces:
    def test_a_directory_that_is_not_a_copy_is_not_replaced(self, source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (target / "precious").write_text("x")
        with pytest.raises(CannotWrite, match="is not a copy of an artifact"):
            copied(source, target)
        assert [path.name for path in target.iterdir()] == ["precious"]

    def test_a_mount_point_is_refused_and_a_directory_in_it_is_suggested(
        self, source: Path, small_filesystem: MakeFilesystem
    ) -> None:
        place = small_filesystem("tmpfs", size=64 * MiB).path
        with pytest.raises(UsageError, match=f"give a directory in it: {place}/model"):
            copied(source, place)

    @pytest.mark.parametrize("place", [".", "inside", ".."])
    def test_source_and_copy_must_not_overlap(self, source: Path, place: str) -> None:
        with pytest.raises(UsageError, match="overlap; give another directory"):
            copied(source, source / place)

    def test_a_file_is_refused_as_source(self, source: Path, target: Path) -> None:
        with pytest.raises(UsageError, match="is not a directory"):
            copied(source / SHARD, target)

    def test_missing_permission_to_write_names_the_directory(self, source: Path, public: Path) -> None:
        place = shutil.copytree(source, public / "source")
        done = run_loader_as_nobody("copy", place, public / "copy")
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (73, "CannotWrite:")
        assert str(public) in last_line(done.stderr)

    def test_missing_permission_to_read_is_its_own_error(self, source: Path, public: Path) -> None:
        place = shutil.copytree(source, public / "source")
        (place / SHARD).chmod(0o600)
        done = run_loader_as_nobody("copy", place, "/dev/shm/never")  # noqa: S108
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (66, "NotReadable:")

    def test_the_staging_directory_of_another_user_is_not_used(self, source: Path, public: Path) -> None:
        require_root("become another user")
        public.chmod(0o1777)
        in_child(lambda: os.setresuid(NOBODY, NOBODY, NOBODY), (public / ".copy.copying").mkdir)
        with pytest.raises(CannotWrite, match=f"belongs to UID {NOBODY}"):
            copied(source, public / "copy")


def item(name: str, chunks: int) -> Item:
    return Item(name, FileIdentity(1, 1, chunks * 10, 1), 10, ())


@given(st.lists(st.integers(0, 9), max_size=9), st.integers(1, 9))
def test_each_chunk_comes_once_and_in_the_order_of_its_file(counts: list[int], files: int) -> None:
    items = [item(str(number), count) for number, count in enumerate(counts)]
    order = [(each.path, index) for each, index in round_robin(items, files=files)]
    assert sorted(order) == [(each.path, index) for each in items for index in range(each.chunks)]
    for each in items:
        assert [index for path, index in order if path == each.path] == list(range(each.chunks))


def test_files_take_turns_chunk_by_chunk() -> None:
    order = [
        (each.path, index) for each, index in round_robin([item("a", 3), item("b", 1), item("c", 2), item("d", 1)], files=2)
    ]
    assert order == [("a", 0), ("b", 0), ("a", 1), ("c", 0), ("a", 2), ("c", 1), ("d", 0)]


STAGES = {
    "the first chunk": lambda: _kill_at(ChunkCopier, "copy_chunk", 1),
    "a chunk in the middle": lambda: _kill_at(ChunkCopier, "copy_chunk", 5),
    "the manifest": lambda: _kill_at(copying, "_seal", 1),
    "the rename": lambda: _kill_at(copying, "put_in_place", 1),
}


def _kill_at(owner: Any, name: str, count: int) -> None:
    _send_at(owner, name, count, signal.SIGKILL)


def _send_at(owner: Any, name: str, count: int, number: signal.Signals) -> None:
    """Replace `owner.name`: its `count`-th call sends signal `number` to this process, then waits for ever."""
    real, calls = getattr(owner, name), []

    def call(*arguments: Any, **words: Any) -> Any:
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), number)
            threading.Event().wait()
        return real(*arguments, **words)

    setattr(owner, name, call)


def killed(work: Callable[[], object], prepare: Callable[[], None]) -> None:
    """Run `work` in a child process that `prepare` lets a signal kill."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


class TestKilled:
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    @pytest.mark.parametrize("prepare", STAGES.values(), ids=STAGES)
    @pytest.mark.parametrize("replacing", [False, True], ids=["new", "replacing"])
    def test_a_killed_copy_leaves_only_a_stage_that_the_next_copy_removes(
        self, source: Path, target: Path, prepare: Callable[[], None], replacing: bool
    ) -> None:
        if replacing:
            copied(source, target)
            damage(source / SHARD, 2 * MiB)
            add_manifest(source, revision="2")
        before = contents(target) if replacing else None
        killed(lambda: copied(source, target), prepare)
        assert (contents(target) if target.exists() else None) == before
        assert stage_of(target).exists()
        copied(source, target)
        assert contents(target) == contents(source)
        assert [entry.name for entry in target.parent.iterdir()] == ["model"]

    def test_a_leftover_stage_is_removed_even_if_the_copy_is_complete(self, source: Path, target: Path) -> None:
        copied(source, target)
        (stage_of(target) / "data").mkdir(parents=True)
        assert copied(source, target).cached
        assert not stage_of(target).exists()


class TestConcurrentCopies:
    def test_the_second_copy_waits_for_the_first_and_uses_its_result(self, source: Path, target: Path) -> None:
        target.parent.mkdir()
        with staged(target, on_wait=lambda: None) as data:
            second = started_loader("copy", source, target, "--json", "--progress", "json")
            try:
                assert second.stderr is not None
                assert json.loads(second.stderr.readline())["reason"] == "Waiting"
                shutil.copytree(source, data, dirs_exist_ok=True)
                os.rename(data, target)
            except BaseException:
                end(second)
                raise
        stdout, stderr = second.communicate(timeout=20)
        assert json.loads(stdout)["cached"], stderr

    def test_a_signal_ends_the_wait(self, source: Path, target: Path) -> None:
        target.parent.mkdir()
        with staged(target, on_wait=lambda: None):
            second = started_loader("copy", source, target, "--progress", "json")
            assert second.stderr is not None
            second.stderr.readline()
            second.send_signal(signal.SIGTERM)
            _, stderr = second.communicate(timeout=20)
        assert second.returncode == 128 + signal.SIGTERM
        assert last_line(stderr).startswith("Interrupted: SIGTERM received")

    def test_one_of_several_copies_works_and_the_others_use_its_result(self, source: Path, target: Path) -> None:
        running = [started_loader("copy", source, target, "--json") for _ in range(4)]
        results = [json.loads(process.communicate(timeout=60)[0]) for process in running]
        assert sorted(result["cached"] for result in results) == [False, True, True, True]
        assert contents(target) == contents(source)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_signal_during_the_copy_leaves_nothing(source: Path, target: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            _send_at(ChunkCopier, "copy_chunk", 3, signal.SIGTERM)
            main(["copy", str(source), str(target), "--threads", "1"])
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    assert leaves_nothing(target)


def test_links_to_a_parent_directory_are_not_followed(source: Path) -> None:
    shutil.rmtree(source / ".fetcher")
    (source / "loop").symlink_to(source.parent)
    assert not any("loop" in item.path for item in read_artifact(source).items)
