"""What a former owner left in staging, continued: each chunk that is said to be there is read and compared.

Where every former owner is proven dead, its inodes are used as they are. Otherwise a paused owner may still hold descriptors
and write at any time, so the good chunks move into a new inode (cloned, else copied) and the old one is let go.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from fetcher.artifact import RemoteFile
from fetcher.integrity.frontier import chunk_digest, read_pieces
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.filesystem import clone
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, JournalledFile, read_journals
from fetcher.store.lease import Lease


def left_behind(lease: Lease) -> dict[str, JournalledFile]:
    """Path → what the former owners' journals, and a manifest that was sealed but not yet placed, say of it."""
    files = read_journals(lease.directory / f"journal.{former}" for former in lease.formers)
    if (manifest := Manifest.read(lease.data / RELATIVE_PATH)) is not None:
        for entry in manifest.files:
            if entry.identity is not None:
                files[entry.path] = JournalledFile(entry.identity, dict(enumerate(entry.chunks)))
    return files


def clear_strangers(lease: Lease, files: Iterable[RemoteFile]) -> None:
    """Remove from staging what the present listing does not hold, a former manifest first of all."""
    shutil.rmtree(lease.data / RELATIVE_PATH.parent, ignore_errors=True)
    wanted = {file.path for file in files}
    for directory, _, names in os.walk(lease.data, topdown=False):
        for name in names:
            path = Path(directory) / name
            if path.relative_to(lease.data).as_posix() not in wanted:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            if Path(directory) != lease.data:
                os.rmdir(directory)


def continue_file(file: RemoteFile, path: Path, journal: Journal, known: JournalledFile, *, trusted: bool) -> StagedFile | None:
    """`path` with those chunks of it that are as `known` says; None when nothing can be used. Blocks. Raises OSError."""
    if known.identity != file.identity or file.size is None or not path.is_file():
        return None
    staged = StagedFile.reopen(file, path, journal) if trusted else None
    if staged is None:
        return _moved(file, path, journal, known.chunks, size=file.size)
    for index in _plausible(known.chunks, file.size):
        if chunk_digest(staged.descriptor, chunk_range(index, file.size)) == known.chunks[index]:
            staged.finish_chunk(index, known.chunks[index])
    return staged


def _moved(file: RemoteFile, path: Path, journal: Journal, chunks: Mapping[int, str], *, size: int) -> StagedFile | None:
    """The good chunks of `path` in a new inode. What the old one's writers do afterwards can't reach it."""
    try:
        old = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        staged = StagedFile.create(file, path, journal)
        cloned = clone(old, staged.descriptor)
        for index in _plausible(chunks, size):
            byte_range = chunk_range(index, size)
            if not cloned:
                offset = byte_range.start
                for piece in read_pieces(old, byte_range, short_ok=True):
                    staged.write(offset, [piece])
                    offset += len(piece)
            # Compared in the new inode, after the copy: the old one may change under it.
            if chunk_digest(staged.descriptor, byte_range) == chunks[index]:
                staged.finish_chunk(index, chunks[index])
        return staged
    finally:
        os.close(old)


def _plausible(chunks: Mapping[int, str], size: int) -> list[int]:
    return sorted(index for index in chunks if 0 <= index < chunk_count(size))
