"""Every way a fetch can fail, as one tree.

Each class carries what a caller, a Job's ``podFailurePolicy`` and a person at 3 a.m. need: a stable `reason` word, the
sysexits `exit_code`, and whether running the same command again can help (`retryable`). The text of an error says what
failed, on which file, and what to do next; it never holds a credential.

::

    FetchError
    ├── UsageError               64  the command itself is wrong
    │   └── UnsupportedScheme    64
    ├── ConfigurationError       78  a setting or a token that can't be used
    │   └── NewerFormat          78  a record that a later version wrote; it is never overwritten
    ├── SourceError                  what a source says (see `sources.base`)
    │   ├── NotFound             66
    │   ├── Unauthorized         77
    │   │   └── GatedRepo        77
    │   ├── Refused              77  the server answers, but not this request (400, 405, 451, ...)
    │   ├── HostilePath          65  a listing that would write outside the artifact
    │   ├── Untrusted            69  TLS: the certificate does not verify
    │   ├── Offline              69  the network is forbidden by HF_HUB_OFFLINE
    │   ├── Transient                worth another try, after `retry_after`
    │   │   ├── Unreachable      69
    │   │   ├── Stalled          69
    │   │   ├── BadResponse      69  a response that breaks the protocol
    │   │   └── RateLimited      75
    │   ├── RangesUnsupported    69  the server sent the whole file instead of a range
    │   ├── ContentChanged       65  the source replaced the file while it was fetched
    │   └── LfsPointer           65  a Git LFS pointer in the place of the file
    ├── DigestMismatch           65
    │   └── DigestUnavailable    65
    ├── MalformedArchive         65  broken, or made to do harm
    ├── StoreError
    │   ├── OutOfSpace           73
    │   ├── CannotWrite          73
    │   ├── TooManyOpenFiles     78  `ulimit -n` is too low
    │   └── LocalIOError         74
    └── LeaseError
        ├── LeaseLost            75
        └── LeaseTimeout         75
"""

from __future__ import annotations

import errno
from typing import ClassVar


class FetchError(Exception):
    """The root. `path` names the artifact's file concerned, when there is one."""

    reason: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def sentence(self) -> str:
        """One line that begins with the reason word and names the file, for stderr and termination messages."""
        where = f"{self.path}: " if self.path and self.path not in self.message else ""
        return " ".join(f"{self.reason}: {where}{self.message}".split())


class UsageError(FetchError):
    reason = "Usage"
    exit_code = 64


class UnsupportedScheme(UsageError):
    reason = "UnsupportedScheme"


class ConfigurationError(FetchError):
    reason = "Configuration"
    exit_code = 78


class NewerFormat(ConfigurationError):
    """A manifest or journal that a later version wrote. This version cannot read it, so it neither uses nor replaces it."""

    reason = "NewerFormat"


class SourceError(FetchError):
    """A source's answer, classified. Sources raise only these; `engine.retry` alone decides what happens next."""


class NotFound(SourceError):
    reason = "NotFound"
    exit_code = 66


class Unauthorized(SourceError):
    reason = "Unauthorized"
    exit_code = 77


class GatedRepo(Unauthorized):
    reason = "GatedRepo"


class Refused(SourceError):
    """The server refuses this request, and the same request again would be refused the same way: 400, 402, 405, 451, 501."""

    reason = "Refused"
    exit_code = 77


class HostilePath(SourceError):
    reason = "HostilePath"
    exit_code = 65


class Untrusted(SourceError):
    """Trying again at once can't cure it; a Job that runs later, with the CA bundle in place, can."""

    reason = "Untrusted"
    exit_code = 69
    retryable = True


class Offline(SourceError):
    reason = "Unreachable"
    exit_code = 69
    retryable = True


class Transient(SourceError):
    """Worth another try. `retry_after` is the number of seconds the server asked for, if it did."""

    reason = "Unreachable"
    exit_code = 69
    retryable = True

    def __init__(self, message: str, *, path: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, path=path)
        self.retry_after = retry_after


class Unreachable(Transient):
    reason = "Unreachable"


class Stalled(Transient):
    reason = "Stalled"


class BadResponse(Transient):
    reason = "BadResponse"


class RateLimited(Transient):
    reason = "RateLimited"
    exit_code = 75


class RangesUnsupported(SourceError):
    """The server answered a range with the whole file. The engine asks again for the whole file on one connection."""

    reason = "BadResponse"
    exit_code = 69
    retryable = True


class ContentChanged(SourceError):
    """What was already received belongs to other content than what the source serves now."""

    reason = "ContentChanged"
    exit_code = 65


class LfsPointer(SourceError):
    """The source holds a Git LFS pointer, a few lines of text, in the place of the file."""

    reason = "LfsPointer"
    exit_code = 65


class DigestMismatch(FetchError):
    reason = "DigestMismatch"
    exit_code = 65

    def __init__(
        self, message: str, *, path: str | None = None, expected: str | None = None, actual: str | None = None
    ) -> None:
        super().__init__(message, path=path)
        self.expected = expected
        self.actual = actual


class DigestUnavailable(DigestMismatch):
    """A digest was asked for (`--require-digests`) and neither the source nor the user gives one."""

    reason = "DigestUnavailable"


class MalformedArchive(FetchError):
    reason = "MalformedArchive"
    exit_code = 65


class StoreError(FetchError):
    pass


class OutOfSpace(StoreError):
    reason = "OutOfSpace"
    exit_code = 73


class CannotWrite(StoreError):
    reason = "CannotWrite"
    exit_code = 73


class TooManyOpenFiles(StoreError):
    """This process may open no more files or sockets: a setting, which another run meets again."""

    reason = "TooManyOpenFiles"
    exit_code = 78


class LocalIOError(StoreError):
    reason = "IOError"
    exit_code = 74
    retryable = True


class LeaseError(FetchError):
    exit_code = 75
    retryable = True


class LeaseLost(LeaseError):
    reason = "LeaseLost"


class LeaseTimeout(LeaseError):
    reason = "LeaseTimeout"


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def from_os_error(error: OSError, *, doing: str, path: str | None = None) -> StoreError:
    """Classify a local OSError by its number; `doing` completes "cannot ...", e.g. "write the staged file".

    The Python class says nothing here: pwrite(2) on NFS can raise TimeoutError, on FUSE even ConnectionResetError.
    """
    where = error.filename if isinstance(error.filename, str) else path
    at = f" {where}" if where else ""
    text = (error.strerror or str(error)).lower()
    if (exhausted := out_of_descriptors(error, doing=f"{doing}{at}", path=path)) is not None:
        return exhausted
    if error.errno in _NO_SPACE:
        return OutOfSpace(f"no space left on device: cannot {doing}{at}; free space or use a larger volume", path=path)
    if error.errno == errno.ELOOP:
        return CannotWrite(f"cannot {doing}{at}: a link is in the place of a file or directory; remove the link", path=path)
    if error.errno in _NO_PERMISSION:
        return CannotWrite(f"cannot {doing}{at}: {text}; check the volume's mount options, ownership and fsGroup", path=path)
    return LocalIOError(f"cannot {doing}{at}: {text}; check the node's disk and the volume", path=path)


def out_of_descriptors(error: OSError, *, doing: str, path: str | None = None) -> StoreError | None:
    """The error for EMFILE and ENFILE, which neither a disk nor a network is to blame for; None for any other."""
    if error.errno == errno.EMFILE:
        advice = "raise the limit with ulimit -n, or lower --max-concurrency"
        return TooManyOpenFiles(f"too many open files: cannot {doing}; {advice}", path=path)
    if error.errno == errno.ENFILE:
        advice = "other processes hold them; raise fs.file-max"
        return LocalIOError(f"too many open files on this machine: cannot {doing}; {advice}", path=path)
    return None
