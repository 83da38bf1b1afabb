"""Each problem of a file has its own error: missing, forbidden, failing, replaced while it was read, or not a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher.errors import FetchError, LocalIOError, NotFound
from loader.checkpoint.files import FileIdentity, open_file, read_bytes
from loader.checkpoint.index import read_checkpoint, read_shard
from loader.errors import FileReplaced, MalformedCheckpoint, NotReadable, from_os_error
from tests.lab.faultfs import Rule
from tests.lab.faults import FaultFilesystem
from tests.loader.making import shard, write_index

pytestmark = pytest.mark.page_cache


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOENT, NotFound),
        (errno.ENOTDIR, NotFound),
        (errno.ELOOP, NotFound),
        (errno.ENAMETOOLONG, NotFound),
        (errno.EACCES, NotReadable),
        (errno.EPERM, NotReadable),
        (errno.ESTALE, FileReplaced),
        (errno.EIO, LocalIOError),
        (errno.ENXIO, LocalIOError),
        (errno.EMFILE, LocalIOError),
        (errno.ETIMEDOUT, LocalIOError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_each_errno_has_its_error(code: int, error: type[FetchError]) -> None:
    raised = from_os_error(OSError(code, os.strerror(code)), doing="read the content", path="/models/a.safetensors")
    assert type(raised) is error
    assert "/models/a.safetensors" in raised.sentence()
    assert raised.path == "/models/a.safetensors"


class TestOpening:
    def test_a_fifo_is_refused_without_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.safetensors")
        with pytest.raises(MalformedCheckpoint, match=r"a\.safetensors: not a regular file"):
            read_checkpoint(tmp_path)

    def test_a_directory_in_place_of_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").mkdir()
        with pytest.raises(MalformedCheckpoint, match=r"a\.safetensors: not a regular file"):
            read_checkpoint(tmp_path)

    def test_the_descriptor_is_blocking_and_not_inherited(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"")
        descriptor = open_file(str(path))
        try:
            assert os.get_blocking(descriptor)
            assert not os.get_inheritable(descriptor)
        finally:
            os.close(descriptor)

    def test_a_link_to_itself_is_missing(self, tmp_path: Path) -> None:
        (tmp_path / "a.safetensors").symlink_to("a.safetensors")
        with pytest.raises(
            NotFound, match=r"a\.safetensors does not exist: it is a link to a\.safetensors, which does not exist"
        ):
            read_checkpoint(tmp_path)

    def test_a_refused_read_names_the_user(self, faulty: FaultFilesystem) -> None:
        (faulty.source / "a.safetensors").write_bytes(shard({"x": b"1"}))
        faulty.obey(Rule("open", error=errno.EACCES))
        with pytest.raises(NotReadable, match=rf"a\.safetensors as UID {os.geteuid()}: permission denied; check its owner"):
            read_checkpoint(faulty.path)


class TestReading:
    @pytest.fixture
    def path(self, faulty: FaultFilesystem) -> Path:
        (faulty.source / "a.safetensors").write_bytes(shard({"x": b"0123456789"}))
        write_index(faulty.source / "model.safetensors.index.json", {"x": "a.safetensors"})
        return faulty.path

    def test_short_reads_are_continued(self, faulty: FaultFilesystem, path: Path) -> None:
        faulty.obey(Rule("read", short=3))
        assert list(read_checkpoint(path).tensors) == ["x"]

    def test_a_disk_error_is_an_io_error(self, faulty: FaultFilesystem, path: Path) -> None:
        faulty.obey(Rule("read", error=errno.EIO))
        with pytest.raises(LocalIOError, match=r"cannot read the content of .*index\.json: input/output error"):
            read_checkpoint(path)

    def test_a_file_that_the_nfs_server_replaced_is_a_temporary_error(self, faulty: FaultFilesystem, path: Path) -> None:
        faulty.obey(Rule("read", error=errno.ESTALE))
        with pytest.raises(FileReplaced, match="replaced or removed on the NFS server; try again"):
            read_shard(str(path / "a.safetensors"))


class TestChangingFiles:
    def test_a_truncated_file_was_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        descriptor = open_file(str(path))
        try:
            assert read_bytes(descriptor, 3, 1, path=str(path)) == b"234"
            with pytest.raises(FileReplaced, match="was truncated while it was read"):
                read_bytes(descriptor, 5, 1, path=str(path))
        finally:
            os.close(descriptor)

    @pytest.mark.parametrize(
        "change", [lambda path: os.truncate(path, 4), lambda path: os.utime(path, (1, 2))], ids=["size", "time"]
    )
    def test_the_identity_of_an_open_file_holds_until_the_file_changes(
        self, tmp_path: Path, change: Callable[[Path], None]
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        descriptor = open_file(str(path))
        try:
            identity = FileIdentity.of(descriptor)
            identity.check(descriptor, path=str(path))
            change(path)
            with pytest.raises(FileReplaced):
                identity.check(descriptor, path=str(path))
        finally:
            os.close(descriptor)
