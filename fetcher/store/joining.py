"""Joins a file whose segments several parts fetched.

Each segment becomes a part of a new inode: a clone where the filesystem can share blocks, else a copy. The chunks keep the
XXH3 that they had when they were received, so the joined file is like one that an earlier attempt has received completely.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.errors import LocalIOError
from fetcher.filesystem import clone_range
from fetcher.store.beneath import open_beneath
from fetcher.store.copying import copy_range
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, JournalledChunk
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment: the file at `path` holds the bytes `part` of the whole, with these XXH3-128 of its chunks."""

    path: Path
    part: ByteRange
    chunks: tuple[str, ...]


def join(
    file: RemoteFile, segments: Sequence[Segment], lease: Lease, journal: Journal, *, stopped: Callable[[], bool]
) -> StagedFile:
    """Return the staged file with all bytes of `segments`, which follow one another; unfinished if `stopped()`. Blocks.

    Raises OSError, LeaseLost, and LocalIOError if the segments are not the whole file.
    """
    if not segments or segments[-1].part.stop != file.size:
        raise LocalIOError(f"the segments of {file.path} do not make the whole file; run all parts again", path=file.path)
    staged = StagedFile.empty(file, lease.data / file.path, journal)
    for segment in segments:
        if stopped():
            break
        _append(staged, segment, lease)
        for number, xxh3 in enumerate(segment.chunks):
            staged.finish_chunk(segment.part.start // CHUNK_SIZE + number, JournalledChunk(xxh3))
    return staged


def _append(staged: StagedFile, segment: Segment, lease: Lease) -> None:
    source = open_beneath(base_of(segment.path), segment.path, os.O_RDONLY)
    try:
        with staged.opened() as target:
            size, start = len(segment.part), segment.part.start
            if clone_range(source, target, size, at=start):
                return
            for offset in range(0, size, CHUNK_SIZE):
                lease.keep()
                copy_range(source, target, ByteRange(offset, min(offset + CHUNK_SIZE, size)), at=start + offset)
    finally:
        os.close(source)
