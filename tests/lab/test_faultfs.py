"""The filesystem that fails on demand passes operations through and fails exactly those of its rules."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.lab.faultfs import Operation, Rule
from tests.lab.faults import FaultFilesystem, fault_filesystem
from tests.lab.filesystems import is_mounted

KiB = 1024


def raises(code: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == code)


class TestWithoutRules:
    def test_files_pass_through_both_ways(self, faulty: FaultFilesystem) -> None:
        content = os.urandom(300 * KiB)
        (faulty.path / "shard").write_bytes(content)
        assert (faulty.source / "shard").read_bytes() == content
        assert (faulty.path / "shard").read_bytes() == content

    def test_directories_links_modes_and_times_pass_through(self, faulty: FaultFilesystem) -> None:
        directory = faulty.path / "snapshot"
        directory.mkdir(mode=0o750)
        (directory / "blob").touch()
        (directory / "link").symlink_to("blob")
        os.link(directory / "blob", directory / "second")
        os.utime(directory / "blob", (1, 2))
        (directory / "blob").chmod(0o604)
        directory.rename(faulty.path / "renamed")
        renamed = faulty.source / "renamed"
        assert sorted(os.listdir(faulty.path / "renamed")) == ["blob", "link", "second"]
        assert os.readlink(renamed / "link") == "blob"
        assert (renamed / "blob").stat().st_nlink == 2
        assert ((renamed / "blob").stat().st_mode & 0o777, (renamed / "blob").stat().st_mtime) == (0o604, 2)

    def test_an_open_file_follows_the_rename_of_its_directory(self, faulty: FaultFilesystem) -> None:
        (faulty.path / "old").mkdir()
        with (faulty.path / "old/shard").open("wb", buffering=0) as file:
            (faulty.path / "old").rename(faulty.path / "new")
            file.write(b"late")
        assert (faulty.source / "new/shard").read_bytes() == b"late"

    def test_inode_numbers_are_equal_to_those_of_the_source(self, faulty: FaultFilesystem) -> None:
        (faulty.path / "shard").touch()
        assert (faulty.path / "shard").stat().st_ino == (faulty.source / "shard").stat().st_ino

    def test_rename_flags_are_refused_as_on_a_network_filesystem(self, faulty: FaultFilesystem) -> None:
        for name in ("one", "two"):
            (faulty.path / name).write_text(name)
        assert exchange(faulty.path / "one", faulty.path / "two") == errno.EINVAL
        assert (faulty.source / "two").read_text() == "two"


def exchange(one: Path, two: Path) -> int:
    """Call renameat2 with RENAME_EXCHANGE and return its errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd, rename_exchange = -100, 2
    failed = libc.renameat2(at_fdcwd, bytes(one), at_fdcwd, bytes(two), rename_exchange)
    return ctypes.get_errno() if failed else 0


class TestErrors:
    def test_a_write_fails_after_the_given_bytes(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("write", error=errno.ENOSPC, after=64 * KiB))
        with (faulty.path / "shard").open("wb", buffering=0) as file:
            assert file.write(bytes(64 * KiB)) == 64 * KiB
            with raises(errno.ENOSPC):
                file.write(b"x")
        assert (faulty.source / "shard").stat().st_size == 64 * KiB

    def test_a_read_fails_with_an_io_error(self, faulty: FaultFilesystem) -> None:
        (faulty.source / "shard").write_bytes(b"weights")
        faulty.obey(Rule("read", error=errno.EIO))
        with raises(errno.EIO):
            (faulty.path / "shard").read_bytes()

    def test_fsync_fails_once_and_then_succeeds(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("fsync", match="shard", error=errno.EIO, times=1))
        with (faulty.path / "shard").open("wb") as file:
            with raises(errno.EIO):
                os.fsync(file.fileno())
            os.fsync(file.fileno())

    def test_the_fsync_of_a_directory_can_fail_too(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("fsync", match="/", error=errno.EIO))
        directory = os.open(faulty.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with raises(errno.EIO):
                os.fsync(directory)
        finally:
            os.close(directory)

    @pytest.mark.parametrize("operation", ["create", "rename", "unlink", "mkdir"])
    def test_a_failed_change_of_names_changes_nothing(self, faulty: FaultFilesystem, operation: Operation) -> None:
        (faulty.source / "old").touch()
        old, new = faulty.path / "old", faulty.path / "new"
        act: dict[str, Callable[[], object]]
        act = {"create": new.touch, "rename": partial(old.rename, new), "unlink": old.unlink, "mkdir": new.mkdir}
        faulty.obey(Rule(operation, error=errno.EROFS))
        with raises(errno.EROFS):
            act[operation]()
        assert os.listdir(faulty.source) == ["old"]

    def test_only_matching_paths_fail(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("write", match="model-2", error=errno.EIO))
        (faulty.path / "model-1").write_bytes(b"weights")
        with raises(errno.EIO):
            (faulty.path / "model-2").write_bytes(b"weights")

    def test_new_rules_replace_the_old_ones(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("create", error=errno.EIO))
        with raises(errno.EIO):
            (faulty.path / "shard").touch()
        faulty.obey()
        (faulty.path / "shard").touch()


class TestShortTransfers:
    def test_a_write_can_be_short(self, faulty: FaultFilesystem) -> None:
        faulty.obey(Rule("write", short=1000))
        with (faulty.path / "shard").open("wb", buffering=0) as file:
            assert file.write(bytes(5000)) == 1000

    def test_a_read_can_be_short(self, faulty: FaultFilesystem) -> None:
        (faulty.source / "shard").write_bytes(bytes(5000))
        faulty.obey(Rule("read", short=1000))
        with (faulty.path / "shard").open("rb", buffering=0) as file:
            assert len(os.pread(file.fileno(), 5000, 0)) == 1000


def test_the_filesystem_is_unmounted_after_a_failure_even_with_a_file_open(tmp_path: Path) -> None:
    stack = ExitStack()
    filesystem = stack.enter_context(fault_filesystem(tmp_path / "lab"))
    with (filesystem.path / "shard").open("wb", buffering=0):
        stack.__exit__(RuntimeError, RuntimeError("the test failed"), None)
        assert not is_mounted(filesystem.path)
