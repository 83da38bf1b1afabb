"""Moves a directory below a root away that no manifest of ours describes: another tool, or a later version of it, made it.

It goes to the replaced versions, and is deleted after their grace period. So a mistake costs an hour, and no model.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from fetcher.errors import CannotWrite, InUse
from fetcher.filesystem import sync_directory
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.beneath import make_directories, rename
from fetcher.store.contender import Contender
from fetcher.store.in_use import use_of
from fetcher.store.layout import Root
from fetcher.store.lease import Lease

_NAME = re.compile(r"[0-9a-f]{16}")


def discard(root: Path, name: str, *, stale: float) -> bool:
    """Move the directory `name` away; False if there is none. Blocks.

    Raises CannotWrite for a name that is no cache key, for an artifact of ours and for what is no directory, InUse if a process
    has a file of it open or fetches that key, NewerFormat, OSError.
    """
    place, layout = root / name, Root(root)
    if not _NAME.fullmatch(name):
        raise CannotWrite(f"{place} has not the name of a cache key; remove it by hand")
    try:
        if not stat.S_ISDIR(os.lstat(place).st_mode) or os.path.ismount(place):
            raise CannotWrite(f"{place} is a link, a file or a mount point; remove it by hand")
    except FileNotFoundError:
        return False
    make_directories(root, layout.staging)
    contender = Contender(layout.staging, name, stale=stale, evicting=True)
    lease = contender.attempt()
    if not isinstance(lease, Lease):
        raise InUse(f"{place} is being fetched or removed by another process; try again later")
    try:
        if Manifest.read(place / RELATIVE_PATH) is not None:
            raise CannotWrite(f"{place} is an artifact; remove it with fetcher rm {name}")
        if use_of(root, _files(place)) == "open":
            raise InUse(f"{place} has files that are open, or of another user; stop who reads them, or correct their owner")
        make_directories(root, layout.old)
        with lease.fenced():
            rename(root, place, root, layout.old_name(name, None))
        sync_directory(root)
    finally:
        contender.give_back(lease)
    return True


def _files(directory: Path) -> Iterator[Path]:
    return (Path(above) / name for above, _, names in os.walk(directory) for name in names)
