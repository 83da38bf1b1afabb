"""Every way a load can fail: the loader's own branch of the tree in `fetcher.errors`, and which OSError means what.

::

    FetchError
    └── LoadError
        ├── MalformedCheckpoint  65  what is in the file can't be trusted: refused before anything of it is allocated
        ├── NotReadable          66  it is there, and this user may not read it
        ├── TooLarge             73  more than the memory it should go to holds
        ├── NotResident          75  read, and taken away again
        ├── PagesDropped         78  the mount gives a file's pages up whenever it is opened, or keeps none
        └── FileReplaced         75  it changed while it was read

What is missing is `fetcher.errors.NotFound` (66), what the disk refuses `LocalIOError` (74), a wrong argument
`UsageError` (64).
"""

from __future__ import annotations

import errno
import os
import reprlib

from fetcher.errors import FetchError, LocalIOError
from loader.addresses import absent


class LoadError(FetchError):
    """The root of the loader's own."""


class MalformedCheckpoint(LoadError):
    """`path` names the file and `field` the place in it: `header length`, `'model.norm.weight'.shape`, ...

    Final: the file says the same at the next attempt. Fetched with digests it was published like this.
    """

    reason = "MalformedCheckpoint"
    exit_code = 65

    def __init__(self, problem: str, *, path: str | None = None, field: str | None = None) -> None:
        super().__init__(": ".join(part for part in (path, field, problem) if part), path=path)
        self.problem = problem
        self.field = field


class NotReadable(LoadError):
    """66, because EX_NOINPUT is the sysexit of a file that isn't there or can't be read; 77 is about the source's door."""

    reason = "NotReadable"
    exit_code = 66


class TooLarge(LoadError):
    reason = "TooLarge"
    exit_code = 73


class NotResident(LoadError):
    reason = "NotResident"
    exit_code = 75
    retryable = True


class PagesDropped(LoadError):
    """Final: nothing but another mount, or another place, changes it."""

    reason = "PagesDropped"
    exit_code = 78


class FileReplaced(LoadError):
    """Worth another try, unlike malformed content: who replaces a file (a refresh, a sync) leaves a whole one behind."""

    reason = "FileReplaced"
    exit_code = 75
    retryable = True


_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_ABANDONED = {errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN, errno.EHOSTDOWN}
"""What a mount answers whose server is gone: FUSE (ENOTCONN, and ECONNABORTED for what was under way), CIFS (EHOSTDOWN)."""


def from_os_error(error: OSError, *, doing: str, path: str) -> FetchError:
    """Classify an OSError met while reading `path`; `doing` completes "cannot ...", e.g. "read the header"."""
    text = (error.strerror or str(error)).lower()
    if error.errno in _MISSING:
        return absent(path, dangling(path))
    if error.errno in _FORBIDDEN:
        problem = f"cannot {doing} of {path} as UID {os.geteuid()}: {text}; check its ownership and mode, and fsGroup"
        return NotReadable(problem, path=path)
    if error.errno == errno.ESTALE:
        return FileReplaced(f"cannot {doing} of {path}: it was replaced or removed on the NFS server; try again", path=path)
    if error.errno in _ABANDONED:
        remedy = "the server of this mount is gone; mount it again, and restart the pods that have the old mount"
        return LocalIOError(f"cannot {doing} of {path}: {text}; {remedy}", path=path)
    return LocalIOError(f"cannot {doing} of {path}: {text}; check the node's disk and the volume", path=path)


def dangling(path: str) -> str:
    """What is wrong with a link of a Hub cache's snapshot whose blob was never fetched, or was deleted."""
    try:
        return f": it is a link to {os.readlink(path)}, which is not there"
    except OSError:
        return ""


def shown(value: object) -> str:
    """A name or value out of a file, fit for a message: it may be long, nested deep, or hold what a terminal obeys."""
    return _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict, _BRIEF.maxstring = 3, 8, 4, 120
