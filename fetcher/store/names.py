"""Probes which names a filesystem allows, and which names it treats as equal. No system call tells, so the names are created.

The filesystem type is not enough. ext4 and tmpfs fold case only in directories with the casefold flag, CIFS and NFS behave as
their server does, and each normalizes Unicode by its own table.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fetcher.errors import CannotWrite
from fetcher.filesystem import storing
from fetcher.planning.paths import shown
from fetcher.store.beneath import make_directories, parent, remove_tree
from fetcher.store.layout import base_of

_NO_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
"""EINVAL from vfat, NTFS and CIFS for `a:b`, EILSEQ where names must be valid Unicode, ENAMETOOLONG from eCryptfs at 144."""


@contextmanager
def naming(path: str, directory: Path) -> Iterator[None]:
    """Raise CannotWrite instead of an OSError if the filesystem of `directory` does not allow a name in `path`.

    The same errors have other causes too, so the names are probed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_NAME:
            for name in PurePosixPath(path).parts:
                _taken_for_one([name], directory, of=path)
        raise


def refuse_taken_for_one(groups: Iterable[Iterable[str]], directory: Path) -> None:
    """Raise CannotWrite if the filesystem of `directory` treats two names of one group as equal. Leaves nothing there."""
    for names in groups:
        with storing("test which names the filesystem distinguishes"):
            pair = _taken_for_one(names, directory)
        if pair is not None:
            raise CannotWrite(
                f"{shown(pair[0])} and {shown(pair[1])} are one name on this filesystem, which folds case or normalizes "
                f"Unicode; nothing was fetched. Leave one of them out with --exclude, or use another filesystem"
            )


def _taken_for_one(names: Iterable[str], directory: Path, *, of: str | None = None) -> tuple[str, str] | None:
    """The first two equal names, if any. Raises CannotWrite for a name that cannot be created, and names the path `of`."""
    base, trial = base_of(directory), directory / f"names-{uuid.uuid4().hex}"
    made: dict[int, str] = {}
    try:
        make_directories(base, trial)
        for name in names:
            with parent(base, trial / name) as (above, _):
                try:
                    os.mkdir(name, dir_fd=above)
                except FileExistsError:
                    inode = os.stat(name, dir_fd=above).st_ino
                    return made.get(inode) or next(iter(made.values())), name
                except OSError as error:
                    if error.errno in _NO_NAME:
                        raise _name_refused(of or name) from error
                    raise
                made[os.stat(name, dir_fd=above).st_ino] = name
    finally:
        remove_tree(base, trial)
    return None


def _name_refused(path: str) -> CannotWrite:
    return CannotWrite(
        f"this filesystem does not allow the name {shown(path)}; leave the file out with --exclude, or use another filesystem"
    )
