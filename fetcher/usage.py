"""When an artifact was last used: the modification time of `<root>/.fetcher/usage/<cache-key>`.

A fetch creates the record; `fetcher` at each hit and `loader` at each open renew its time. A record is never required: on a
read-only mount, for another user, and outside a cache root nothing is recorded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RECORDS = (".fetcher", "usage")


def note_use(*artifacts: str | os.PathLike[str]) -> None:
    """Record that artifacts are used now, each given by its directory or a file in it. Creates no record, and raises nothing:
    the caller reports a path that cannot be read."""
    for artifact in artifacts:
        with suppress(OSError, ValueError):
            path = Path(os.path.realpath(artifact))
            directory = path if os.path.isdir(path) else path.parent
            renew(directory.parent, directory.name)


def renew(root: Path, key: str) -> bool:
    """Set the time of the record of `key` to now. Return False if that is not possible. Follows no link below the root."""
    try:
        with _records(root) as records:
            record = os.open(key, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=records)
            try:
                status = os.fstat(record)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    return False  # a hard link to a foreign file: its times are not ours to change
                os.utime(record)
            finally:
                os.close(record)
    except (OSError, ValueError):
        return False
    return True


def last_used(root: Path, key: str) -> float | None:
    """Return when the artifact `key` of a cache root was last used, in seconds since 1970; None if there is no record."""
    try:
        with _records(root) as records:
            status = os.stat(key, dir_fd=records, follow_symlinks=False)
            return status.st_mtime if stat.S_ISREG(status.st_mode) else None
    except (OSError, ValueError):
        return None


@contextmanager
def _records(root: Path) -> Iterator[int]:
    """Open the directory of the records below `root`, without following a link in it."""
    opened = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for name in _RECORDS:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened.append(os.open(name, flags, dir_fd=opened[-1]))
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)
