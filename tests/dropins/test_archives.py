"""A hostile archive cannot write outside its directory, fill the disk, or create anything but plain files."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from fetcher.archives import layers
from fetcher.archives.streams import XZ_MEMORY
from fetcher.errors import FetchError, HostilePath, LocalIOError, MalformedArchive, OutOfSpace
from fetcher.testing.checkpoint import random_bytes
from fetcher.uncancelled import Stopped
from tests.dropins.archives import FORMATS, regular, special, tar, tar_of, unpack, zipped
from tests.dropins.conftest import MiB, tree
from tests.lab.chaos import Chaos
from tests.lab.fixtures import MakeFilesystem

FILES = {"config.json": b"{}", "deep/er/weights.bin": random_bytes("packed", MiB + 7), "empty": b""}


def unpacked(archive: bytes, tmp_path: Path, *, stopped: Callable[[], bool] = lambda: False) -> dict[str, bytes]:
    """Unpack `archive` and return its files. Asserts that nothing outside its directory changed, and that no link is in it."""
    path, directory = tmp_path / "archive", tmp_path / "in" / "directory"
    path.write_bytes(archive)
    directory.mkdir(parents=True)
    try:
        found = unpack(path, directory, stopped=stopped)
    finally:
        assert sorted(os.listdir(tmp_path)) == ["archive", "in"]
        assert os.listdir(tmp_path / "in") == ["directory"]
        assert not [each for each in directory.rglob("*") if each.is_symlink()]
    return {name: file.place.read_bytes() for name, file in found.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_valid_archive_unpacks_to_its_files(name: str, tmp_path: Path) -> None:
    assert unpacked(FORMATS[name](FILES), tmp_path) == FILES


def test_each_file_has_its_size_and_digest(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    (tmp_path / "new").mkdir()
    found = unpack(tmp_path / "a.zip", tmp_path / "new")
    expected = {path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()}
    assert {path: (file.size, file.digest.hex) for path, file in found.items()} == expected


def test_unpacked_files_are_readable_by_all_and_ignore_the_modes_of_the_archive(tmp_path: Path) -> None:
    member = tarfile.TarInfo("run.sh")
    member.mode, member.size = 0o6755, 2
    found = unpack(written(tmp_path, tar_of([(member, b"#!")])), tmp_path)
    assert found["run.sh"].place.stat().st_mode & 0o7777 == 0o644


def test_a_process_that_finds_its_directory_removed_does_not_make_it_again(tmp_path: Path) -> None:
    """It was stopped, and the next owner of the lease removed what it had unpacked."""
    archive, directory = tmp_path / "archive", tmp_path / "directory"
    archive.write_bytes(tar({"a/one": b"1", "b/two": b"2", "c/three": b"3"}))
    directory.mkdir()
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:  # within the second member that has content
            shutil.rmtree(directory)
        return False

    with pytest.raises(LocalIOError, match="unpack the archive"):
        unpack(archive, directory, stopped=stopped)
    assert not directory.exists()


class TestLinks:
    def test_a_link_to_another_member_becomes_that_file(self, tmp_path: Path) -> None:
        archive = tar_of(
            [
                special("first", tarfile.SYMTYPE, "blobs/weights"),
                special("deep/second", tarfile.SYMTYPE, "../first"),
                special("third", tarfile.LNKTYPE, "blobs/weights"),
                regular("blobs/weights", b"content"),
            ]
        )
        assert unpacked(archive, tmp_path) == dict.fromkeys(["first", "deep/second", "third", "blobs/weights"], b"content")

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    @pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "absent", "itself", "."])
    def test_a_link_to_anything_else_is_refused(self, kind: bytes, target: str, tmp_path: Path) -> None:
        with pytest.raises(MalformedArchive, match="not a file in the archive"):
            unpacked(tar_of([special("itself", kind, target)]), tmp_path)

    def test_no_file_is_written_through_a_link_to_a_directory(self, tmp_path: Path) -> None:
        outside = tmp_path / "in"
        archive = tar_of([special("away", tarfile.SYMTYPE, str(outside)), regular("away/planted", b"x")])
        with pytest.raises(MalformedArchive):
            unpacked(archive, tmp_path)


HOSTILE_NAMES = [
    "../outside",
    "/absolute",
    "a/../../outside",
    "c:\\windows",
    "back\\slash",
    "line\nfeed",
    ".fetcher/manifest.json",
]


class TestNames:
    @pytest.mark.parametrize("pack", [tar, zipped], ids=["tar", "zip"])
    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_a_name_outside_the_directory_is_refused(self, pack: Callable[..., bytes], name: str, tmp_path: Path) -> None:
        with pytest.raises(HostilePath):
            unpacked(pack({name: b"x"}), tmp_path)

    def test_a_name_that_occurs_twice_is_refused(self, tmp_path: Path) -> None:
        twice = tar_of([regular("./same"), regular("same")])
        with pytest.raises(MalformedArchive, match="twice"):
            unpacked(twice, tmp_path)

    @pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a")])
    def test_a_path_that_is_both_file_and_directory_is_refused(self, order: tuple[str, str], tmp_path: Path) -> None:
        with pytest.raises(MalformedArchive, match="already exists as a file"):
            unpacked(tar_of([regular(name) for name in order]), tmp_path)


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_devices_and_pipes_are_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(MalformedArchive, match="not a file, directory or link"):
        unpacked(tar_of([special("device", kind)]), tmp_path)


class TestBombs:
    def test_a_member_larger_than_the_free_space_is_not_written(self, tmp_path: Path, small_filesystem: MakeFilesystem) -> None:
        small = small_filesystem("tmpfs", size=8 * MiB)
        path = tmp_path / "bomb.tgz"
        path.write_bytes(tar({"zeros": bytes(32 * MiB)}, "gz"))
        assert path.stat().st_size < MiB
        directory = small.path / "directory"
        directory.mkdir()
        with pytest.raises(OutOfSpace, match="no space left on device"):
            unpack(path, directory)
        assert not tree(directory)

    def test_members_that_together_exceed_the_space_are_refused(self, tmp_path: Path, small_filesystem: MakeFilesystem) -> None:
        small = small_filesystem("tmpfs", size=8 * MiB)
        path = tmp_path / "bomb.zip"
        path.write_bytes(zipped({f"{number}": bytes(MiB) for number in range(12)}))
        directory = small.path / "directory"
        directory.mkdir()
        with pytest.raises(OutOfSpace):
            unpack(path, directory)

    def test_a_sparse_member_counts_with_its_claimed_size(self, tmp_path: Path) -> None:
        header = tarfile.TarInfo("sparse")
        header.size = 1 << 60
        with pytest.raises(OutOfSpace):
            unpacked(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path)

    def test_too_many_members_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layers, "MEMBERS", 10)
        for archive in (tar({f"{number}": b"" for number in range(11)}), zipped({f"{number}/": b"" for number in range(11)})):
            (tmp_path / "new").mkdir(exist_ok=True)
            with pytest.raises(MalformedArchive, match="more than 10 members"):
                unpack(written(tmp_path, archive), tmp_path / "new")

    def test_a_header_that_claims_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        header = tarfile.TarInfo("long")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
        with pytest.raises(MalformedArchive, match="header or directory"):
            unpacked(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240), tmp_path)

    def test_a_zip_directory_that_claims_gigabytes_is_not_read(self, tmp_path: Path) -> None:
        archive = bytearray(zipped({"a": b"x"}) + bytes(8 * MiB))
        end = archive.rindex(b"PK\x05\x06")
        # The size and the offset of the directory in the end record.
        archive = archive[:end] + bytes(8 * MiB) + archive[end : end + 22]
        archive[-10:-2] = (8 * MiB).to_bytes(4, "little") + (0).to_bytes(4, "little")
        with pytest.raises(MalformedArchive):
            unpacked(bytes(archive), tmp_path)

    def test_xz_that_asks_for_too_much_memory_is_refused(self, tmp_path: Path) -> None:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2 * XZ_MEMORY}]
        with pytest.raises(MalformedArchive, match=r"[Mm]emory"):
            unpacked(lzma.compress(tar({"a": b"x"}), filters=filters), tmp_path)

    def test_a_negative_size_is_refused(self, tmp_path: Path) -> None:
        header = bytearray(tarfile.TarInfo("negative").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 12  # base-256: -1
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        with pytest.raises(FetchError):
            unpacked(bytes(header) + bytes(1024), tmp_path)


def written(tmp_path: Path, archive: bytes) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(archive)
    return path


class TestDamage:
    @pytest.mark.parametrize("name", FORMATS)
    def test_a_damaged_archive_is_refused_or_unpacks_to_the_same_files(self, name: str, tmp_path: Path) -> None:
        """The flipped bit can be in an ignored field (a date, padding); then the files are the same."""
        whole = FORMATS[name]({"weights": random_bytes("damaged", 5000), "config.json": b"{}"})
        intact = None
        for number, position in enumerate(range(0, len(whole), max(1, len(whole) // 60))):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            directory = tmp_path / f"{number}"
            directory.mkdir()
            try:
                unpack(written(tmp_path, bytes(damaged)), directory)
            except FetchError:
                continue
            if name != "model.tar":  # a tar has no checksum of its content
                intact = tree(directory)
                assert set(intact.values()) == {random_bytes("damaged", 5000), b"{}"}

    @pytest.mark.parametrize("name", FORMATS)
    def test_a_truncated_archive_is_refused(self, name: str, tmp_path: Path) -> None:
        whole = FORMATS[name]({"weights": random_bytes("cut", 5000), "config.json": b"{}"})
        padding = 20 * 512 if name == "model.tar" else 0  # a tar ends with more zeros than it needs
        for number, length in enumerate(range(0, len(whole) - padding, max(1, len(whole) // 40))):
            directory = tmp_path / f"{number}"
            directory.mkdir()
            with pytest.raises(FetchError):
                unpack(written(tmp_path, whole[:length]), directory)

    def test_data_after_the_end_of_an_archive_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedArchive, match="after the end"):
            unpacked(gzip.compress(tar({"a": b"x"}) + bytes(64 * MiB)), tmp_path)

    def test_a_web_page_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedArchive):
            unpacked(b"<html>please log in</html>" * 100, tmp_path)

    def test_an_archive_without_files_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MalformedArchive, match="no files"):
            unpacked(tar_of([special("directory", tarfile.DIRTYPE)]), tmp_path)

    def test_an_encrypted_member_is_refused(self, tmp_path: Path) -> None:
        archive = bytearray(zipped({"a": b"secret"}, compress=False))
        for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            archive[archive.index(signature) + flags] |= 1
        with pytest.raises(MalformedArchive, match="encrypted"):
            unpacked(bytes(archive), tmp_path)

    def test_a_zip_with_a_nameless_member_or_a_negative_offset_is_refused(self, tmp_path: Path) -> None:
        """zipfile raises IndexError and ValueError for these."""
        nameless = bytearray(zipped({"a": b"x"}))
        for signature, field in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
            nameless[nameless.index(signature) + field] = 0
        early = bytearray(zipped({"a": b"x"}))
        early[-6:-2] = (1 << 20).to_bytes(4, "little")  # the offset of the directory
        for number, archive in enumerate((nameless, early)):
            directory = tmp_path / f"{number}"
            directory.mkdir()
            with pytest.raises(MalformedArchive):
                unpack(written(tmp_path, bytes(archive)), directory)

    def test_a_member_larger_than_its_claimed_size_is_refused(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("grows", bytes(100_000))
        claimed = buffer.getvalue().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
        with pytest.raises(MalformedArchive):
            unpacked(claimed, tmp_path)


def test_any_mutated_archive_ends_in_plain_files_or_a_fetch_error(chaos: Chaos, tmp_path: Path) -> None:
    links = [special("link", tarfile.SYMTYPE, "a"), special("other", tarfile.LNKTYPE, "a"), special("d", tarfile.DIRTYPE)]
    packed = [pack({"a/b": bytes(3000), "config.json": b"{}"}) for pack in FORMATS.values()]
    packed.append(tar_of([regular("a", b"content"), *links]))
    for number in chaos.rounds(ordinarily=500):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        with suppress(FetchError):
            unpack(written(tmp_path, mutated(chaos.random, packed)), directory)
        assert not [path for path in directory.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
        shutil.rmtree(directory)
    assert os.listdir(tmp_path) == ["archive"]


def mutated(chance: Random, archives: list[bytes]) -> bytes:
    """Return one of `archives`, changed at a few places."""
    content = bytearray(chance.choice(archives))
    for _ in range(chance.randint(1, 5)):
        position = chance.randrange(len(content))
        match chance.randrange(4):
            case 0:
                content[position] = chance.randrange(256)
            case 1:
                content[position : position + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
            case 2:
                del content[position : position + min(chance.randint(1, 600), len(content) - 1)]
            case 3:
                content[position:position] = content[position : position + 512]
    return bytes(content)


def test_unpacking_stops_after_the_caller_was_cancelled(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        unpacked(tar({"a": bytes(4 * MiB)}), tmp_path, stopped=lambda: True)
