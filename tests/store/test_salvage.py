"""The files of a previous owner are continued in their inodes if it can write no more, else in new inodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE, Digest, RemoteFile
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, JournalledChunk, read_journals
from fetcher.store.lease import Lease, acquire, observe, take_over
from fetcher.store.owner import Owner
from fetcher.store.salvage import continue_file, left_behind
from fetcher.testing.checkpoint import random_bytes
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
CONTENT = random_bytes("salvage", 2 * CHUNK_SIZE + 5)
FILE = RemoteFile("model.safetensors", len(CONTENT), (Digest("sha256", "ab" * 32),))


def chunk(index: int) -> bytes:
    return CONTENT[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]


def digest(content: bytes) -> str:
    hasher = new_chunk_hasher()
    hasher.update(content)
    return hasher.hexdigest()


def interrupted_fetch(staging: Path) -> tuple[Lease, StagedFile]:
    """A lease with the first and the last chunk of FILE written. Its owner still has the file open."""
    lease = acquire(staging, "key", stale=60.0)
    assert lease is not None
    journal = Journal(lease.journal_path, mode=0o644, version="1")
    staged = StagedFile.create(FILE, lease.data / FILE.path, journal)
    staged.keep_open()
    for index in (0, 2):
        staged.write(index * CHUNK_SIZE, memoryview(chunk(index)))
        staged.finish_chunk(index, JournalledChunk(digest(chunk(index))))
    journal.close()
    return lease, staged


def continued(staging: Path, *, previous: Lease) -> tuple[Lease, StagedFile | None]:
    """Take over and continue FILE. Unless `previous` was released, its owner is made one that cannot be proven dead."""
    if not (seen := observe(staging / "key")) or not seen.abandoned:
        remote = replace(Owner.new(), boot="0123456789abcdef")
        for kind in ("data", "lease", "journal"):
            (previous.directory / f"{kind}.{previous.owner}").rename(previous.directory / f"{kind}.{remote}")
        seen = observe(staging / "key")
    assert seen is not None
    lease = take_over(staging / "key", seen, stale=60.0)
    assert lease is not None
    known = left_behind(lease).files[FILE.path]
    journal = Journal(lease.journal_path, mode=0o644, version="1")
    path = lease.data / FILE.path
    resumed = continue_file(FILE, path, journal, known, inodes_reusable=lease.inodes_reusable, stopped=lambda: False)
    journal.close()
    return lease, resumed


def test_the_inode_of_an_owner_that_closed_it_is_reused(tmp_path: Path) -> None:
    previous, staged = interrupted_fetch(tmp_path)
    inode = staged.path.stat().st_ino
    staged.close()
    previous.release()
    lease, resumed = continued(tmp_path, previous=previous)
    assert resumed is not None
    assert resumed.chunks.keys() == {0, 2}
    assert (lease.data / FILE.path).stat().st_ino == inode
    resumed.close()


def test_good_chunks_of_an_owner_that_may_still_write_are_copied_to_a_new_inode(tmp_path: Path) -> None:
    previous, staged = interrupted_fetch(tmp_path)
    staged.write(0, memoryview(b"damage before"))
    lease, resumed = continued(tmp_path, previous=previous)
    assert resumed is not None
    assert resumed.chunks.keys() == {2}
    staged.write(2 * CHUNK_SIZE, memoryview(b"after"))
    assert (lease.data / FILE.path).read_bytes()[2 * CHUNK_SIZE :] == chunk(2)
    staged.close()
    resumed.close()


@pytest.mark.parametrize(("position", "kept"), [(CHUNK_SIZE, True), (2 * CHUNK_SIZE, False), (CHUNK_SIZE - 1, False)])
@pytest.mark.parametrize("released", [True, False], ids=["the same inode", "a new inode"])
def test_hashing_continues_if_all_chunks_before_its_position_are_good(
    tmp_path: Path, *, position: int, kept: bool, released: bool
) -> None:
    previous, staged = interrupted_fetch(tmp_path)
    journal = Journal(previous.journal_path, mode=0o644, version="1")
    journal.state(FILE.path, position, b"in the making")
    journal.close()
    staged.close()
    if released:
        previous.release()
    lease, resumed = continued(tmp_path, previous=previous)
    assert resumed is not None
    assert resumed.state == ((position, b"in the making") if kept else (0, b""))
    assert read_journals([lease.journal_path]).files[FILE.path].state == resumed.state
    resumed.close()


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_the_old_inode_is_removed_if_the_volume_has_no_room_for_a_copy(small_filesystem: MakeFilesystem, kind: str) -> None:
    """A volume with room for one copy of the artifact must be enough."""
    volume = small_filesystem(kind, size=(300 if kind == "xfs" else 112) * MiB)  # type: ignore[arg-type]
    previous, staged = interrupted_fetch(volume.path / "staging")
    staged.close()
    volume.fill(leave=20 * MiB)
    lease, resumed = continued(volume.path / "staging", previous=previous)
    assert resumed is None
    assert not list(lease.data.iterdir())
    fresh = StagedFile.create(FILE, lease.data / FILE.path, Journal(lease.journal_path, mode=0o644, version="1"))
    fresh.close()
