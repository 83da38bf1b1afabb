"""Continues the staged files of a previous owner. Every chunk that the journal records is read and compared first.

If every previous owner is proven dead, its inodes are used again. Otherwise a paused owner may still hold descriptors and
write at any time. Then the good chunks are cloned or copied into a new inode, and the old one is removed.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.errors import NO_SPACE
from fetcher.filesystem import clone, sync_directory
from fetcher.integrity.frontier import read_pieces
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import Fence, remove, remove_directory, remove_tree, rename
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, Journalled, JournalledChunk, JournalledFile, read_journals
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease


def left_behind(lease: Lease) -> Journalled:
    """Read the previous owners' journals, and a manifest that was sealed but not yet placed. Raises NewerFormat."""
    journals = [lease.directory / f"journal.{owner}" for owner in lease.previous_owners]
    # Our own comes last: if the source was listed again, it records the chunks that were already continued.
    journalled = read_journals([*journals, lease.journal_path])
    fence = Fence(base_of(lease.data), lease.data)
    fence.restore([lease.data / RELATIVE_PATH])
    if (manifest := Manifest.read(lease.data / RELATIVE_PATH)) is not None:
        fence.restore(lease.data / entry.path for entry in manifest.files)
        journalled.authenticated |= manifest.authenticated
        for entry in manifest.files:
            if entry.identity is not None and entry.shared != "link":  # an inode that is or was published is never continued
                chunks = {index: JournalledChunk(xxh3) for index, xxh3 in enumerate(entry.chunks)}
                journalled.files[entry.path] = JournalledFile(entry.identity, chunks)
    return journalled


def remove_unlisted_files(lease: Lease, files: Iterable[RemoteFile]) -> None:
    """Remove staged files that `files` does not list. Keeps a sealed manifest: it is needed until every file is continued."""
    wanted = {file.path for file in files} | {RELATIVE_PATH.as_posix()}
    for directory, _, names in os.walk(lease.data, topdown=False):
        for name in names:
            path = Path(directory) / name
            if path.relative_to(lease.data).as_posix() not in wanted:
                remove(base_of(path), path)
        with suppress(OSError):
            if Path(directory) != lease.data:
                remove_directory(base_of(Path(directory)), Path(directory))


def forget_what_was_left(lease: Lease, journal: Journal) -> None:
    """Remove the previous owners' records and manifest. `journal` now records everything that was continued. Raises OSError."""
    journal.sync()
    sync_directory(lease.directory)
    remove_tree(base_of(lease.data), lease.data / RELATIVE_PATH.parent)
    lease.forget_previous_owners()


def continue_file(
    file: RemoteFile,
    path: Path,
    journal: Journal,
    known: JournalledFile,
    *,
    inodes_reusable: bool,
    stopped: Callable[[], bool],
) -> StagedFile | None:
    """Return the staged file at `path` with the chunks that match `known`; None if nothing can be used, or if `stopped()`.

    Blocks. Raises OSError.
    """
    if known.identity != file.identity or file.size is None or not path.is_file():
        return None
    chunks = {index: chunk for index, chunk in sorted(known.chunks.items()) if 0 <= index < chunk_count(file.size)}
    staged = StagedFile.reopen(file, path, journal) if inodes_reusable else None
    if staged is None:
        staged = _move_to_new_inode(file, path, journal, chunks, size=file.size, stopped=stopped)
        if staged is not None:
            _continue_hashing(staged, known)
        return staged
    with staged.opened() as descriptor:
        for index, chunk in chunks.items():
            if stopped():
                break
            staged.finish_if_unchanged(index, chunk, descriptor, file.size)
        _continue_parts(staged, descriptor, known, file.size)
    _continue_hashing(staged, known)
    return staged


def _continue_hashing(staged: StagedFile, known: JournalledFile) -> None:
    """Continue SHA-256, if its position is a chunk boundary or the end, and every chunk before it is unchanged."""
    position, state = known.state
    whole = position == staged.size or position % CHUNK_SIZE == 0
    if position and whole and all(index in staged.chunks for index in range(chunk_count(position))):
        staged.note_state(position, state)


def _continue_parts(staged: StagedFile, descriptor: int, known: JournalledFile, size: int) -> None:
    """Continue chunks that were begun, if their bytes match the journal."""
    for index, part in known.parts.items():
        if index in staged.chunks or not 0 <= index < chunk_count(size) or not 0 < part.length < len(chunk_range(index, size)):
            continue
        start = chunk_range(index, size).start
        hasher = staged.crcs.new_hasher(start)
        for piece in read_pieces(descriptor, ByteRange(start, start + part.length), short_ok=True):
            hasher.update(piece)
        if hasher.hexdigest() == part.xxh3:
            staged.continue_part(index, part, hasher)


def _move_to_new_inode(
    file: RemoteFile,
    path: Path,
    journal: Journal,
    chunks: Mapping[int, JournalledChunk],
    *,
    size: int,
    stopped: Callable[[], bool],
) -> StagedFile | None:
    """Copy the good chunks of `path` into a new inode, which writers of the old one cannot reach.

    The old inode keeps its name until the copy is complete, so that a kill loses nothing. If the volume has no room for both,
    the old one is removed: a volume with room for one copy of the artifact must be enough.
    """
    try:
        old = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    draft = path.with_name(f".{uuid.uuid4().hex}.moving")  # a suffix could make the file's own name too long
    try:
        staged = StagedFile.create(file, draft, journal)
        if not copy_good_chunks(staged, old, chunks, size=size, stopped=stopped):
            return None
        rename(base_of(draft), draft, base_of(path), path)
        staged.path = path
        return staged
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        for each in (draft, path):
            remove(base_of(each), each)
        journal.drop(file.path)
        return None
    finally:
        os.close(old)


def copy_good_chunks(
    staged: StagedFile, old: int, chunks: Mapping[int, JournalledChunk], *, size: int, stopped: Callable[[], bool]
) -> bool:
    """Copy the good `chunks` from descriptor `old` to `staged`; False if `stopped()`. Raises OSError."""
    with staged.opened() as descriptor:
        cloned = clone(old, descriptor)
        for index, chunk in chunks.items():
            if stopped():
                return False
            if not cloned:
                _copy(old, staged, chunk_range(index, size))
            # Compare in the new inode, after the copy: the old one may change at any time.
            staged.finish_if_unchanged(index, chunk, descriptor, size)
        # Sync before closing: a descriptor that is opened later may not get the error of writing back.
        os.fdatasync(descriptor)
    return True


def _copy(old: int, staged: StagedFile, byte_range: ByteRange) -> None:
    offset = byte_range.start
    for piece in read_pieces(old, byte_range, short_ok=True):
        staged.write(offset, piece)
        offset += len(piece)
