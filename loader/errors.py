"""The errors of the loader, a branch of the tree in `fetcher.errors`, and the mapping of OSErrors to them.

::

    FetchError
    └── LoadError
        ├── MalformedCheckpoint  65  the content is invalid; refused before any memory is allocated for it
        ├── NotReadable          66  this user is not allowed to read the file
        ├── TooLarge             73  the weights do not fit into the memory they should go to
        ├── NotResident          75  the kernel reclaimed pages that were read
        ├── PagesDropped         78  the mount drops the pages of a file at every open, or caches none
        └── FileReplaced         75  the file changed while it was read

A missing file is `fetcher.errors.NotFound` (66), an I/O error of the disk `LocalIOError` (74), a wrong argument
`UsageError` (64).
"""

from __future__ import annotations

import errno
import os
import reprlib

from fetcher.errors import FetchError, LocalIOError
from loader.addresses import missing_path_error


class LoadError(FetchError):
    """The base class of the loader's errors."""


class MalformedCheckpoint(LoadError):
    """The content of `path` is invalid at `field`: `header length`, `'model.norm.weight'.shape`, ...

    Permanent: another attempt reads the same content. A file that was verified by digests was published like this.
    """

    reason = "MalformedCheckpoint"
    exit_code = 65

    def __init__(self, problem: str, *, path: str | None = None, field: str | None = None) -> None:
        super().__init__(": ".join(part for part in (path, field, problem) if part), path=path)
        self.problem = problem
        self.field = field


class NotReadable(LoadError):
    """Exit code 66 (EX_NOINPUT): an input file is missing or not readable. 77 (EX_NOPERM) is for refusals by the source."""

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
    """Permanent: only another mount or another directory helps."""

    reason = "PagesDropped"
    exit_code = 78


class FileReplaced(LoadError):
    """Temporary, unlike malformed content: a refresh or a sync leaves a complete file when it is done."""

    reason = "FileReplaced"
    exit_code = 75
    retryable = True


_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_ABANDONED = {errno.ENOTCONN, errno.ECONNABORTED, errno.ESHUTDOWN, errno.EHOSTDOWN}
"""Errors of a mount whose server is gone: FUSE (ENOTCONN, and ECONNABORTED for calls in progress), CIFS (EHOSTDOWN)."""


def from_os_error(error: OSError, *, doing: str, path: str) -> FetchError:
    """Return the error for an OSError at `path`; `doing` completes "cannot ... of", for example "read the header"."""
    text = (error.strerror or str(error)).lower()
    if error.errno in _MISSING:
        return missing_path_error(path, dangling(path))
    if error.errno in _FORBIDDEN:
        problem = f"cannot {doing} of {path} as UID {os.geteuid()}: {text}; check its owner, its mode and fsGroup"
        return NotReadable(problem, path=path)
    if error.errno == errno.ESTALE:
        return FileReplaced(f"cannot {doing} of {path}: it was replaced or removed on the NFS server; try again", path=path)
    if error.errno in _ABANDONED:
        remedy = "the server of this mount is gone; mount it again, and restart the pods that use the old mount"
        return LocalIOError(f"cannot {doing} of {path}: {text}; {remedy}", path=path)
    return LocalIOError(f"cannot {doing} of {path}: {text}; check the node's disk and the volume", path=path)


def dangling(path: str) -> str:
    """Return the part of a message about a link without a target, as in a Hub cache whose blob was not fetched; else ""."""
    try:
        return f": it is a link to {os.readlink(path)}, which does not exist"
    except OSError:
        return ""


def shown(value: object) -> str:
    """Return a name or value from a file, safe for a message: shortened, and without control characters."""
    return _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxlist, _BRIEF.maxdict, _BRIEF.maxstring = 3, 8, 4, 120
