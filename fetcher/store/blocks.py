"""The blocks of files, in groups that several files can share: inodes with several names, and extents of clones.

Whoever adds up groups counts shared bytes once, and never less than is allocated. The filesystem itself tells what is shared
(xfs, btrfs), so a repair or a foreign clone cannot make the account wrong. Extents count as shared if they begin and end at the
same places; any other overlap counts for each file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable
from contextlib import suppress
from typing import NamedTuple

from fetcher.host.extents import shared_extents

Blocks = dict[Hashable, int]
"""Group → allocated bytes."""


class Inode(NamedTuple):
    """The blocks of one inode that no other inode shares. `linked`: it has several names."""

    device: int
    number: int
    linked: bool = False


class Extent(NamedTuple):
    """Blocks that several inodes share; their place on the device in bytes."""

    device: int
    start: int
    stop: int


def blocks_of(status: os.stat_result, name: str, *, directory: int | None = None, extents: bool = True) -> Blocks:
    """Return the groups of the file `name` below the open `directory`, whose status is known.

    Without `extents`, what clones share counts for each of them, and nothing is opened.
    """
    regular = stat.S_ISREG(status.st_mode)
    shared = _extents(status.st_dev, name, directory) if extents and regular and status.st_blocks else ()
    found: Blocks = {extent: extent.stop - extent.start for extent in shared}
    rest = max(0, status.st_blocks * 512 - sum(found.values()))
    return {**found, Inode(status.st_dev, status.st_ino, regular and status.st_nlink > 1): rest}


def shared_bytes(blocks: Blocks) -> int:
    """Return the bytes of those groups that other files, or other names, have too."""
    return sum(size for group, size in blocks.items() if not isinstance(group, Inode) or group.linked)


def _extents(device: int, name: str, directory: int | None) -> tuple[Extent, ...]:
    with suppress(OSError):  # a file that cannot be read, or a filesystem that does not say
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            return tuple(Extent(device, start, stop) for start, stop in shared_extents(descriptor))
        finally:
            os.close(descriptor)
    return ()
