"""Stages a damaged published file again: its good chunks are cloned or copied into a new inode, which the engine completes.

A published file is only read. The chunks of an interrupted repair are continued if they are more than the published file has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from fetcher.artifact import ORIGIN, RemoteFile
from fetcher.filesystem import clones
from fetcher.integrity.frontier import chunk_digest
from fetcher.manifest import Manifest, ManifestFile
from fetcher.planning.ranges import chunk_range
from fetcher.store.beneath import Fence, remove
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, Journalled, JournalledChunk, JournalledFile
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease
from fetcher.store.placement import Placement
from fetcher.store.salvage import continue_file, copy_good_chunks, left_behind


def interrupted(lease: Lease, entries: Iterable[ManifestFile]) -> Journalled:
    """Return what an interrupted fetch or repair left. Moves a staged file of `entries` back if a kill interrupted its rename.

    Raises NewerFormat, OSError.
    """
    Fence(base_of(lease.data), lease.data).restore(lease.data / entry.path for entry in entries)
    return left_behind(lease)


class Damaged:
    """A file of the present artifact that may be damaged. `names` is the number of names of its inode; 0 if it is missing."""

    def __init__(self, placement: Placement, manifest: Manifest, entry: ManifestFile, *, stopped: Callable[[], bool]) -> None:
        """Open the published file and compare every chunk. Blocks. A file that cannot be read has no good chunk."""
        self.entry = entry
        self.names = 0
        self.good: dict[int, JournalledChunk] = {}
        self._descriptor: int | None = None
        self._whole = False
        file = RemoteFile(entry.path, entry.size, entry.digests, entry.validator)
        with suppress(OSError):
            self._descriptor = placement.open_published(file, manifest)
            status = os.fstat(self._descriptor)
            self.names = status.st_nlink
            self.good = _good_chunks(self._descriptor, entry, stopped)
            self._whole = status.st_size == entry.size

    @property
    def intact(self) -> bool:
        """Whether somebody else repaired the file meanwhile."""
        return self._whole and len(self.good) == len(self.entry.chunks)

    def stage(
        self, file: RemoteFile, lease: Lease, journal: Journal, known: JournalledFile | None, stopped: Callable[[], bool]
    ) -> StagedFile | None:
        """Return the staged `file` with all good chunks, in a new inode; None if `stopped()`. `known` is what an interrupted
        attempt left. Blocks. Raises OSError; then nothing is staged."""
        path = lease.data / file.path
        if known is not None and len(begun := self._matching(known).chunks) > len(self.good):
            known = replace(known, chunks=begun)
            staged = continue_file(file, path, journal, known, inodes_reusable=lease.inodes_reusable, stopped=stopped)
            if staged is not None:
                return staged
        journal.drop(file.path)
        try:
            staged = StagedFile.create(file, path, journal)
            if self._descriptor is None or copy_good_chunks(
                staged, self._descriptor, self.good, size=self.entry.size, stopped=stopped
            ):
                return staged
        except OSError:
            remove(base_of(path), path)
            raise
        return None

    def space(self, lease: Lease) -> int:
        """Return the bytes that the successor may still allocate under `lease`: the bad chunks where the good ones can be
        cloned, else the whole file, without what an interrupted attempt left. Raises OSError."""
        size = self.entry.size
        cloned = False
        with suppress(OSError):  # a full volume, where eviction is still to make room for the trial
            cloned = bool(self.good) and clones(lease.data)
        if cloned:
            return size - sum(len(chunk_range(index, size)) for index in self.good)
        with suppress(FileNotFoundError):
            return max(0, size - os.lstat(lease.data / self.entry.path).st_blocks * 512)
        return size

    def close(self) -> None:
        """Close the published file. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _matching(self, known: JournalledFile) -> JournalledFile:
        """Return the chunks of `known` that the manifest lists."""
        listed = dict(enumerate(self.entry.chunks))
        return replace(known, chunks={index: each for index, each in known.chunks.items() if listed.get(index) == each.xxh3})


def _good_chunks(descriptor: int, entry: ManifestFile, stopped: Callable[[], bool]) -> dict[int, JournalledChunk]:
    good = {}
    for index, xxh3 in enumerate(entry.chunks):
        if stopped():
            break
        with suppress(OSError):  # the device cannot read this chunk
            if chunk_digest(descriptor, chunk_range(index, entry.size)) == xxh3:
                # Its file was verified as a whole: what a mirror brings beside it is suspected first.
                good[index] = JournalledChunk(xxh3, supplier=ORIGIN)
    return good
