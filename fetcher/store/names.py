"""Whether a filesystem takes two names for one: no call tells, so it is asked by making them.

The kind of the filesystem does not decide. ext4 and tmpfs fold case only in directories with the casefold flag, CIFS and NFS do
as their server does, and each normalizes by its own table.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from fetcher.errors import CannotWrite
from fetcher.filesystem import storing
from fetcher.planning.paths import shown


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


def _taken_for_one(names: Iterable[str], directory: Path) -> tuple[str, str] | None:
    with tempfile.TemporaryDirectory(prefix="names-", dir=directory) as trial:
        made: dict[int, str] = {}
        for name in names:
            path = os.path.join(trial, name)
            try:
                os.mkdir(path)
            except FileExistsError:
                return made.get(os.stat(path).st_ino) or next(iter(made.values())), name
            made[os.stat(path).st_ino] = name
    return None
