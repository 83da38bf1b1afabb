"""What a former owner left: continued in its inodes if it can write no more, else in new ones."""

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


def begun(staging: Path) -> tuple[Lease, StagedFile]:
    """A lease in which the first and the last chunk of FILE are written; its owner still has the file open."""
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


def continued(staging: Path, *, former: Lease) -> tuple[Lease, StagedFile | None]:
    """By an owner that can not prove that the former one is dead, unless that released."""
    if not (seen := observe(staging / "key")) or not seen.abandoned:
        away = replace(Owner.new(), boot="0123456789abcdef")
        for kind in ("data", "lease", "journal"):
            (former.directory / f"{kind}.{former.owner}").rename(former.directory / f"{kind}.{away}")
        seen = observe(staging / "key")
    assert seen is not None
    lease = take_over(staging / "key", seen, stale=60.0)
    assert lease is not None
    known = left_behind(lease).files[FILE.path]
    journal = Journal(lease.journal_path, mode=0o644, version="1")
    path = lease.data / FILE.path
    found = continue_file(FILE, path, journal, known, inodes_reusable=lease.inodes_reusable, stopped=lambda: False)
    journal.close()
    return lease, found


def test_the_inode_of_an_owner_that_closed_it_is_used_on(tmp_path: Path) -> None:
    former, staged = begun(tmp_path)
    inode = staged.path.stat().st_ino
    staged.close()
    former.release()
    lease, found = continued(tmp_path, former=former)
    assert found is not None
    assert found.chunks.keys() == {0, 2}
    assert (lease.data / FILE.path).stat().st_ino == inode
    found.close()


def test_the_good_chunks_of_one_that_may_still_write_are_moved_out_of_its_reach(tmp_path: Path) -> None:
    former, staged = begun(tmp_path)
    staged.write(0, memoryview(b"damage before"))
    lease, found = continued(tmp_path, former=former)
    assert found is not None
    assert found.chunks.keys() == {2}
    staged.write(2 * CHUNK_SIZE, memoryview(b"after"))
    assert (lease.data / FILE.path).read_bytes()[2 * CHUNK_SIZE :] == chunk(2)
    staged.close()
    found.close()


@pytest.mark.parametrize(("position", "kept"), [(CHUNK_SIZE, True), (2 * CHUNK_SIZE, False), (CHUNK_SIZE - 1, False)])
@pytest.mark.parametrize("released", [True, False], ids=["the same inode", "a new inode"])
def test_hashing_goes_on_where_it_was_if_all_before_it_is_there(
    tmp_path: Path, *, position: int, kept: bool, released: bool
) -> None:
    former, staged = begun(tmp_path)
    journal = Journal(former.journal_path, mode=0o644, version="1")
    journal.state(FILE.path, position, b"in the making")
    journal.close()
    staged.close()
    if released:
        former.release()
    lease, found = continued(tmp_path, former=former)
    assert found is not None
    assert found.state == ((position, b"in the making") if kept else (0, b""))
    assert read_journals([lease.journal_path]).files[FILE.path].state == found.state
    found.close()


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_where_there_is_no_room_for_both_the_old_inode_goes(small_filesystem: MakeFilesystem, kind: str) -> None:
    """A volume that holds the artifact once must do."""
    volume = small_filesystem(kind, size=(300 if kind == "xfs" else 112) * MiB)  # type: ignore[arg-type]
    former, staged = begun(volume.path / "staging")
    staged.close()
    volume.fill(leave=20 * MiB)
    lease, found = continued(volume.path / "staging", former=former)
    assert found is None
    assert not list(lease.data.iterdir())
    fresh = StagedFile.create(FILE, lease.data / FILE.path, Journal(lease.journal_path, mode=0o644, version="1"))
    fresh.close()
