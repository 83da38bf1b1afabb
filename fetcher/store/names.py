"""Which names a filesystem has, and which two it takes for one: no call tells, so it is asked by making them.

The kind of the filesystem does not decide. ext4 and tmpfs fold case only in directories with the casefold flag, CIFS and NFS do
as their server does, and each normalizes by its own table.
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
"""EINVAL of vfat, NTFS and CIFS for `a:b`, EILSEQ where names are valid Unicode only, ENAMETOOLONG of eCryptfs from 144."""


@contextmanager
def naming(path: str, directory: Path) -> Iterator[None]:
    """Raises CannotWrite in the place of an OSError when the filesystem of `directory` has no such name as those in `path`.

    The same errors have other reasons too, so the filesystem is asked.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_NAME:
            for name in PurePosixPath(path).parts:
                _taken_for_one([name], directory, of=path)
        raise


def refuse_taken_for_one(groups: Iterable[Iterable[str]], directory: Path) -> None:
    """Raises CannotWrite when the names of one of `groups` are not as many entries below `directory`. Leaves nothing there."""
    for names in groups:
        with storing("ask the filesystem which names it tells apart"):
            found = _taken_for_one(names, directory)
        if found is not None:
            raise CannotWrite(
                f"{shown(found[0])} and {shown(found[1])} are one name on this filesystem, which folds case or normalizes "
                f"Unicode; nothing was fetched. Leave one of them out with --exclude, or use a filesystem that tells them apart"
            )


def _taken_for_one(names: Iterable[str], directory: Path, *, of: str | None = None) -> tuple[str, str] | None:
    """The first two, if any. Raises CannotWrite for a name that can't be made, and says that it is `of` that path."""
    base, trial = base_of(directory), directory / f"names-{uuid.uuid4().hex}"
    made: dict[int, str] = {}
    try:
        make_directories(base, trial)
        for name in names:
            with parent(base, trial / name) as (above, _):
                try:
                    os.mkdir(name, dir_fd=above)
                except FileExistsError:
                    there = os.stat(name, dir_fd=above).st_ino
                    return made.get(there) or next(iter(made.values())), name
                except OSError as error:
                    if error.errno in _NO_NAME:
                        raise _nameless(of or name) from error
                    raise
                made[os.stat(name, dir_fd=above).st_ino] = name
    finally:
        remove_tree(base, trial)
    return None


def _nameless(path: str) -> CannotWrite:
    return CannotWrite(
        f"this filesystem has no such name as {shown(path)}; leave the file out with --exclude, or use a filesystem that has it"
    )
