"""Stages a file from a donor: a clone, a hard link or a copy of it, in which every chunk is compared with the donor's manifest.

A damaged donor gives nothing. A link is only read, and a clone or copy is a new inode.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fetcher.artifact import RemoteFile
from fetcher.filesystem import clone, clones, file_mode, try_chmod
from fetcher.integrity.frontier import chunk_digest
from fetcher.planning.ranges import chunk_range
from fetcher.store.beneath import link, open_beneath, remove, rename
from fetcher.store.copying import copy_range
from fetcher.store.donors import Donor
from fetcher.store.layout import base_of, fence_of
from fetcher.values import dataclass

How = Literal["clone", "link", "copy"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Shares files of the artifacts below `root`. `donors` finds them; `linking` allows hard links."""

    root: Path
    donors: Callable[[RemoteFile], Iterable[Donor]]
    linking: bool

    def offers(self, file: RemoteFile) -> bool:
        """Whether an artifact has an equal file. It may be damaged."""
        return next(iter(self.donors(file)), None) is not None

    def takes_no_space(self, directory: Path) -> bool:
        """Whether files staged in `directory` share the blocks of the artifacts. Raises OSError."""
        return self.linking or clones(directory)

    def stage(self, file: RemoteFile, target: Path, *, stopped: Callable[[], bool]) -> tuple[Donor, How] | None:
        """Stage a file equal to `file` at `target`, synced; None if no artifact has an undamaged one, or if `stopped()`.

        What `target` held before is replaced only by a good file. Blocks. Raises nothing: the file is fetched then, which
        reports a full disk or a lost lease.
        """
        for donor in self.donors(file):
            if how := _stage(donor, target, self.root, self.linking, stopped):
                return donor, how
        return None


def _stage(donor: Donor, target: Path, root: Path, linking: bool, stopped: Callable[[], bool]) -> How | None:
    if (source := _opened(root, donor)) is None:
        return None
    draft = target.with_name(f".{uuid.uuid4().hex}.shared")
    try:
        fence_of(target).make_directories(target.parent)
        how = (_linked(root, donor, draft, stopped) if linking else None) or _copied(donor, source, draft, stopped)
        if how is not None:
            rename(base_of(draft), draft, base_of(target), target)
        return how
    except OSError:  # also a donor that cannot be read
        return None
    finally:
        os.close(source)
        with suppress(OSError):
            remove(base_of(draft), draft)


def _opened(root: Path, donor: Donor) -> int | None:
    """Open the donor's file below the root; None unless it is a regular file of the listed size."""
    with suppress(OSError, ValueError):  # ValueError: the record names a place outside of the root
        descriptor = open_beneath(root, donor.path, os.O_RDONLY)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == donor.file.size:
            return descriptor
        os.close(descriptor)
    return None


def _linked(root: Path, donor: Donor, draft: Path, stopped: Callable[[], bool]) -> How | None:
    try:
        link(root, donor.path, draft)
        descriptor = open_beneath(root, draft, os.O_RDONLY)
    except OSError:  # no hard links, too many, another mount, or a file of another user
        return None
    try:
        if os.fstat(descriptor).st_size == donor.file.size and _matches(donor, descriptor, stopped):
            return "link"
    finally:
        os.close(descriptor)
    remove(base_of(draft), draft)
    return None


def _copied(donor: Donor, source: int, draft: Path, stopped: Callable[[], bool]) -> How | None:
    mode = file_mode(draft.parent)
    descriptor = fence_of(draft).create(draft, mode)
    try:
        try_chmod(descriptor, mode)
        how: How = "clone" if clone(source, descriptor) else "copy"
        if not _matches(donor, descriptor, stopped, source=source if how == "copy" else None):
            return None
        os.fsync(descriptor)
        return how
    finally:
        os.close(descriptor)


def _matches(donor: Donor, descriptor: int, stopped: Callable[[], bool], *, source: int | None = None) -> bool:
    """Whether every chunk is the one that the manifest lists. Each is copied from `source` before, if that is given."""
    for index, xxh3 in enumerate(donor.file.chunks):
        if stopped():
            return False
        chunk = chunk_range(index, donor.file.size)
        if source is not None:
            copy_range(source, descriptor, chunk, at=chunk.start)
        # Compare in the new file, after the copy: the donor may change at any time.
        if chunk_digest(descriptor, chunk) != xxh3:
            return False
    return True
