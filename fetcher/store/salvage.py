"""What a previous owner left in staging, continued: each chunk that is said to be there is read and compared.

Where every previous owner is proven dead, its inodes are used as they are. Otherwise a paused owner may still hold descriptors
and write at any time, so the good chunks move into a new inode (cloned, else copied) and the old one is let go.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.filesystem import clone, sync_directory
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.integrity.frontier import chunk_digest, read_pieces
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import Fence, remove, remove_directory, remove_tree, rename
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, Journalled, JournalledChunk, JournalledFile, read_journals
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease


def left_behind(lease: Lease) -> Journalled:
    """What the previous owners' journals, and a manifest that was sealed but not yet placed, say. Raises NewerFormat."""
    journals = [lease.directory / f"journal.{owner}" for owner in lease.previous_owners]
    # One's own comes last: it speaks of what was already continued, when a listing is made anew.
    found = read_journals([*journals, lease.journal_path])
    fence = Fence(base_of(lease.data), lease.data)
    fence.restore([lease.data / RELATIVE_PATH])
    if (manifest := Manifest.read(lease.data / RELATIVE_PATH)) is not None:
        fence.restore(lease.data / entry.path for entry in manifest.files)
        found.authenticated |= manifest.authenticated
        for entry in manifest.files:
            if entry.identity is not None:
                chunks = {index: JournalledChunk(xxh3) for index, xxh3 in enumerate(entry.chunks)}
                found.files[entry.path] = JournalledFile(entry.identity, chunks)
    return found


def clear_strangers(lease: Lease, files: Iterable[RemoteFile]) -> None:
    """Remove from staging what the present listing does not hold; but a sealed manifest is needed until all is continued."""
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
    """All that can be continued is in `journal`: the previous owners' records and manifest are no longer needed."""
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
    """`path` with those chunks of it that are as `known` says; None when nothing can be used, or when `stopped()`.

    Blocks. Raises OSError.
    """
    if known.identity != file.identity or file.size is None or not path.is_file():
        return None
    chunks = {index: chunk for index, chunk in sorted(known.chunks.items()) if 0 <= index < chunk_count(file.size)}
    staged = StagedFile.reopen(file, path, journal) if inodes_reusable else None
    if staged is None:
        staged = _moved(file, path, journal, chunks, size=file.size, stopped=stopped)
        if staged is not None:
            _continue_hashing(staged, known)
        return staged
    with staged.opened() as descriptor:
        for index, chunk in chunks.items():
            if stopped():
                break
            if chunk_digest(descriptor, chunk_range(index, file.size)) == chunk.xxh3:
                staged.finish_chunk(index, chunk)
        _continue_parts(staged, descriptor, known, file.size)
    _continue_hashing(staged, known)
    return staged


def _continue_hashing(staged: StagedFile, known: JournalledFile) -> None:
    """Only at a chunk's border (or the end), and only if every chunk before it is as it was when it was hashed."""
    position, state = known.state
    whole = position == staged.size or position % CHUNK_SIZE == 0
    if position and whole and all(index in staged.chunks for index in range(chunk_count(position))):
        staged.note_state(position, state)


def _continue_parts(staged: StagedFile, descriptor: int, known: JournalledFile, size: int) -> None:
    """Chunks that were begun go on where they were left, if what is there is what was written."""
    for index, part in known.parts.items():
        if index in staged.chunks or not 0 <= index < chunk_count(size) or not 0 < part.length < len(chunk_range(index, size)):
            continue
        start = chunk_range(index, size).start
        hasher = new_chunk_hasher()
        for piece in read_pieces(descriptor, ByteRange(start, start + part.length), short_ok=True):
            hasher.update(piece)
        if hasher.hexdigest() == part.xxh3:
            staged.continue_part(index, part, hasher)


def _moved(
    file: RemoteFile,
    path: Path,
    journal: Journal,
    chunks: Mapping[int, JournalledChunk],
    *,
    size: int,
    stopped: Callable[[], bool],
) -> StagedFile | None:
    """The good chunks of `path` in a new inode. What the old one's writers do afterwards can't reach it.

    The old inode keeps its name until the new one is whole, so that a kill in between loses nothing. Where there is no room
    for both, the old one goes: a volume that holds the artifact once must do.
    """
    try:
        old = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    draft = path.with_name(f".{uuid.uuid4().hex}.moving")  # the file's own name may be as long as a name can be
    try:
        staged = StagedFile.create(file, draft, journal)
        if not _filled(staged, old, chunks, size=size, stopped=stopped):
            return None
        rename(base_of(draft), draft, base_of(path), path)
        staged.path = path
        return staged
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        for each in (draft, path):
            remove(base_of(each), each)
        journal.drop(file.path)
        return None
    finally:
        os.close(old)


def _filled(
    staged: StagedFile, old: int, chunks: Mapping[int, JournalledChunk], *, size: int, stopped: Callable[[], bool]
) -> bool:
    """Whether all good ones of `chunks` are in `staged` now; False when `stopped()`. Raises OSError."""
    with staged.opened() as descriptor:
        cloned = clone(old, descriptor)
        for index, chunk in chunks.items():
            if stopped():
                return False
            byte_range = chunk_range(index, size)
            if not cloned:
                _copy(old, staged, byte_range)
            # Compared in the new inode, after the copy: the old one may change under it.
            if chunk_digest(descriptor, byte_range) == chunk.xxh3:
                staged.finish_chunk(index, chunk)
        # Before it is closed: an error of writing back may be reported to no descriptor that is opened later.
        os.fdatasync(descriptor)
    return True


def _copy(old: int, staged: StagedFile, byte_range: ByteRange) -> None:
    offset = byte_range.start
    for piece in read_pieces(old, byte_range, short_ok=True):
        staged.write(offset, piece)
        offset += len(piece)
