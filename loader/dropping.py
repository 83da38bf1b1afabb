"""Whether a mount keeps the pages of a file for whoever opens it next.

FUSE does not without keep-cache: whatever is warmed, or even locked, is gone when an engine opens the file. FUSE with direct_io
has no pages at all. Its files can't be mapped, as those of any filesystem without a page cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from loader.contents import Member
from loader.errors import PagesDropped
from loader.kernel import PAGE, counts_waiting, map_shared, mapped, tells_truth, unmap

_TRIES = 3
"""So often a page must be gone at once before the mount is blamed: memory may be short for a moment."""


def refuse_dropped_pages(members: Iterable[Member]) -> None:
    """Try one file of each mount. Raises PagesDropped, and what opening raises."""
    for member in {member.identity.device: member for member in members if member.size}.values():
        if _has_no_pages(member):
            raise PagesDropped(
                f"the mount of {member.path} keeps no pages in memory: its files can't be mapped, as with FUSE's direct_io; "
                "mount it without that, or bring the model to tmpfs or a local disk with `loader copy`",
                path=member.path,
            )
        if all(_drops(member) for _ in range(_TRIES)):
            raise PagesDropped(
                f"the mount of {member.path} does not keep a file's pages for who opens it next, so nothing can be kept in "
                "memory there; mount it with keep-cache, or bring the model to tmpfs or a local disk with `loader copy`",
                path=member.path,
            )


def _has_no_pages(member: Member) -> bool:
    """mmap(2) says ENODEV where the filesystem has nothing to map."""
    with member.opened() as descriptor:
        try:
            unmap(map_shared(descriptor, 0, PAGE), PAGE)
        except OSError as error:
            return error.errno == errno.ENODEV
        return False


def _drops(member: Member) -> bool:
    """False where nobody can tell."""
    with member.opened() as descriptor:
        if _there_once_read(descriptor) is not True:
            return _there_once_read(descriptor) is False
        with member.opened():
            return _there(descriptor) is False


def _there_once_read(descriptor: int) -> bool | None:
    try:
        os.preadv(descriptor, [bytearray(PAGE)], 0)
    except OSError:
        return None
    return _there(descriptor)


def _there(descriptor: int) -> bool | None:
    """Whether the first page is in memory, without opening the file again; None where nothing tells."""
    with mapped(descriptor, 0, PAGE) as page:
        if page is None:
            return None
        if tells_truth(descriptor):
            return page.resident_pages() == 1
        return page.faults(alone=True) == 0 if counts_waiting(descriptor) else None
