"""Detects mounts that drop a file's pages when the file is opened again.

FUSE without keep-cache drops them: warmed pages, even locked ones, are gone when an engine opens the file. FUSE with direct_io
has no pages at all: its files can't be mapped, like those of any filesystem without a page cache.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from loader.errors import PagesDropped
from loader.kernel import PAGE, counts_waiting, map_shared, mapped, mincore_is_reliable, unmap
from loader.residency.model_files import ModelFile

_TRIES = 3
"""A page must be gone this many times before we blame the mount: memory may be short for a moment."""


def refuse_dropped_pages(members: Iterable[ModelFile]) -> None:
    """Test one file of each mount. Raises PagesDropped, and the errors of `ModelFile.opened`."""
    for member in {member.identity.device: member for member in members if member.size}.values():
        if _has_no_pages(member):
            raise PagesDropped(
                f"the mount of {member.path} keeps no pages in memory: its files can't be mapped (FUSE with direct_io?); "
                "mount it without direct_io, or copy the model to tmpfs or a local disk with `loader copy`",
                path=member.path,
            )
        if all(_drops(member) for _ in range(_TRIES)):
            raise PagesDropped(
                f"the mount of {member.path} drops a file's pages when the file is opened again, so nothing stays in memory; "
                "mount it with keep-cache, or copy the model to tmpfs or a local disk with `loader copy`",
                path=member.path,
            )


def _has_no_pages(member: ModelFile) -> bool:
    """mmap(2) fails with ENODEV where the filesystem cannot map files."""
    with member.opened() as descriptor:
        try:
            unmap(map_shared(descriptor, 0, PAGE), PAGE)
        except OSError as error:
            return error.errno == errno.ENODEV
        return False


def _drops(member: ModelFile) -> bool:
    """False also where residency cannot be measured."""
    with member.opened() as descriptor:
        if _first_page_stays(descriptor) is not True:
            return _first_page_stays(descriptor) is False
        with member.opened():
            return _first_page_is_resident(descriptor) is False


def _first_page_stays(descriptor: int) -> bool | None:
    try:
        os.preadv(descriptor, [bytearray(PAGE)], 0)
    except OSError:
        return None
    return _first_page_is_resident(descriptor)


def _first_page_is_resident(descriptor: int) -> bool | None:
    """Whether the first page is in memory; None if this cannot be measured. Does not open the file again."""
    with mapped(descriptor, 0, PAGE) as page:
        if page is None:
            return None
        if mincore_is_reliable(descriptor):
            return page.resident_pages() == 1
        return page.faults(alone=True) == 0 if counts_waiting(descriptor) else None
