"""The lab's filesystems have a limited size, report ENOSPC, and lose unsynced data on power loss."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.lab.filesystems import Kind, MiB, is_mounted, mounted_filesystem
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

SIZES: dict[Kind, int] = {"ext4": 64 * MiB, "xfs": 320 * MiB, "btrfs": 128 * MiB, "tmpfs": 4 * MiB}

every_kind = pytest.mark.parametrize("kind", list(SIZES))
journalling = pytest.mark.parametrize("kind", ["xfs", "ext4"])


def write(path: Path, content: bytes, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())


@every_kind
def test_written_data_is_read_back(small_filesystem: MakeFilesystem, kind: Kind) -> None:
    filesystem = small_filesystem(kind, size=SIZES[kind])
    write(filesystem.path / "shard", b"weights", sync=True)
    assert is_mounted(filesystem.path)
    assert (filesystem.path / "shard").read_bytes() == b"weights"


@every_kind
def test_a_full_filesystem_reports_no_space(small_filesystem: MakeFilesystem, kind: Kind) -> None:
    filesystem = small_filesystem(kind, size=SIZES[kind])
    filesystem.fill(leave=MiB)
    with pytest.raises(OSError, match="No space left") as caught:
        write(filesystem.path / "shard", bytes(SIZES["ext4"]), sync=True)
    assert caught.value.errno == errno.ENOSPC


@every_kind
def test_removing_the_ballast_frees_the_space(small_filesystem: MakeFilesystem, kind: Kind) -> None:
    filesystem = small_filesystem(kind, size=SIZES[kind])
    ballast = filesystem.fill(leave=0)
    with pytest.raises(OSError, match="No space left"):
        write(filesystem.path / "shard", bytes(3 * MiB), sync=True)
    ballast.unlink()
    write(filesystem.path / "shard", bytes(3 * MiB), sync=True)


def test_a_filesystem_can_run_out_of_inodes_with_space_left(small_filesystem: MakeFilesystem) -> None:
    filesystem = small_filesystem("tmpfs", size=4 * MiB, inodes=3)
    write(filesystem.path / "first", b"", sync=False)
    write(filesystem.path / "second", b"", sync=False)
    with pytest.raises(OSError, match="No space left"):
        write(filesystem.path / "third", b"", sync=False)
    assert filesystem.free() > 3 * MiB


def test_a_read_only_filesystem_refuses_writes(small_filesystem: MakeFilesystem) -> None:
    filesystem = small_filesystem("ext4", size=SIZES["ext4"])
    filesystem.remount_read_only()
    with pytest.raises(OSError, match="Read-only file system"):
        write(filesystem.path / "shard", b"weights", sync=False)


@journalling
def test_power_loss_keeps_synced_data_and_loses_the_rest(small_filesystem: MakeFilesystem, kind: Kind) -> None:
    filesystem = small_filesystem(kind, size=SIZES[kind])
    write(filesystem.path / "synced", b"kept" * MiB, sync=True)
    write(filesystem.path / "unsynced", b"lost" * MiB, sync=False)
    assert (filesystem.path / "unsynced").read_bytes() == b"lost" * MiB
    filesystem.lose_power()
    assert (filesystem.path / "synced").read_bytes() == b"kept" * MiB
    unsynced = filesystem.path / "unsynced"
    assert not unsynced.exists() or unsynced.read_bytes() != b"lost" * MiB


def test_power_loss_undoes_a_rename_without_a_directory_sync(small_filesystem: MakeFilesystem) -> None:
    filesystem = small_filesystem("xfs", size=SIZES["xfs"])
    staged, published = filesystem.path / "staged", filesystem.path / "published"
    write(staged, b"weights", sync=True)
    os.sync()
    staged.rename(published)
    filesystem.lose_power()
    assert staged.exists()
    assert not published.exists()


def test_a_shut_down_filesystem_fails_with_an_io_error(small_filesystem: MakeFilesystem) -> None:
    filesystem = small_filesystem("xfs", size=SIZES["xfs"])
    filesystem.shut_down()
    with pytest.raises(OSError, match="Input/output error"):
        write(filesystem.path / "shard", b"weights", sync=True)


def test_a_filesystem_is_unmounted_after_a_failure_even_with_a_file_open(tmp_path: Path) -> None:
    stack = ExitStack()
    filesystem = stack.enter_context(mounted_filesystem("ext4", tmp_path / "lab", size=SIZES["ext4"]))
    assert str(filesystem.image) in loop_backing_files()
    with (filesystem.path / "shard").open("wb"):
        stack.__exit__(RuntimeError, RuntimeError("the test failed"), None)
        assert not is_mounted(filesystem.path)
    wait_until(lambda: str(filesystem.image) not in loop_backing_files(), "the loop device is detached")


def loop_backing_files() -> set[str]:
    """Return the backing files of all loop devices, unlinked ones too."""
    files = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # another process just detached it
            files.add(path.read_text().strip().removesuffix(" (deleted)"))
    return files


def test_a_shut_down_filesystem_is_unmounted(tmp_path: Path) -> None:
    with mounted_filesystem("xfs", tmp_path / "lab", size=SIZES["xfs"]) as filesystem:
        filesystem.shut_down()
        assert is_mounted(filesystem.path)
    assert not is_mounted(filesystem.path)


def test_a_size_below_the_minimum_of_mkfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xfs needs at least"), mounted_filesystem("xfs", tmp_path, size=MiB):
        pass
