"""The error tree of a fetch.

Each class has a stable `reason` word, a sysexits `exit_code`, and `retryable`: whether running the same command again can
help. Callers, a Job's ``podFailurePolicy`` and people read these. The text of an error says what failed, on which file, and
what to do next; it never contains a credential.

::

    FetchError
    ├── UsageError               64  the command line or a call is wrong
    │   └── UnsupportedScheme    64
    ├── ConfigurationError       78  a setting or a token cannot be used
    │   └── NewerFormat          78  a later version wrote this record; it is never overwritten
    ├── SourceError                  a source's answer (see `sources.base`)
    │   ├── NotFound             66
    │   ├── Unauthorized         77
    │   │   └── GatedRepo        77
    │   ├── Refused              77  the server refuses this request (400, 405, 451, ...)
    │   ├── SourceNotAllowed     77  the administrator does not allow the source, or where it leads
    │   ├── HostilePath          65  a listed path would be written outside the artifact
    │   ├── Untrusted            69  TLS: the certificate cannot be verified
    │   ├── Offline              69  HF_HUB_OFFLINE forbids using the network
    │   ├── Transient                a temporary error, retried after `retry_after`
    │   │   ├── Unreachable      69
    │   │   ├── Stalled          69
    │   │   ├── BadResponse      69  a response violates the protocol
    │   │   ├── MirrorFailed     69  a mirror brings nothing now; the range comes from elsewhere
    │   │   └── RateLimited      75
    │   ├── RangesUnsupported    69  the server sent the whole file instead of a range
    │   ├── ContentChanged       65  the source serves other content than it lists
    │   │   └── KeepsChanging    75  the source changed again after each new listing
    │   ├── OtherRevision        75  the source has another revision than was resolved
    │   └── LfsPointer           65  the source has a Git LFS pointer instead of the file
    ├── DigestMismatch           65
    │   ├── DigestUnavailable    65
    │   ├── SignatureInvalid     65  a signature does not verify, or is not of who is trusted
    │   └── Differs              65  a directory to be adopted does not hold the source's files
    ├── MalformedArchive         65  the archive is damaged or malicious
    ├── StoreError
    │   ├── OutOfSpace           73
    │   ├── CannotWrite          73
    │   ├── PinnedArtifact       73  a pin forbids removing the artifact
    │   ├── CacheBusy            75  room would need artifacts that are in use now
    │   ├── InUse                75
    │   │   └── InUseUnknown     75  this filesystem does not tell whether the artifact is in use
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
    """The root of all errors. `path` is the affected file of the artifact, if there is one."""

    reason: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 70
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path

    def sentence(self) -> str:
        """Return one line with reason word, file and message, for stderr and termination messages."""
        where = f"{self.path}: " if self.path and self.path not in self.message else ""
        return " ".join(f"{self.reason}: {where}{self.message}".split())


class UsageError(FetchError):
    """The command line, or a call from Python, is wrong."""

    reason = "Usage"
    exit_code = 64


class UnsupportedScheme(UsageError):
    """The URI has a scheme that no source handles."""

    reason = "UnsupportedScheme"


class ConfigurationError(FetchError):
    """A setting, an environment variable or a token cannot be used."""

    reason = "Configuration"
    exit_code = 78


class NewerFormat(ConfigurationError):
    """A later version wrote this manifest or journal. This version cannot read it, so it neither uses nor replaces it."""

    reason = "NewerFormat"


class SourceError(FetchError):
    """A source's answer, classified. Sources raise only these errors; only `engine.retry` decides whether to try again."""


class NotFound(SourceError):
    """The repository, revision, file or cached artifact does not exist."""

    reason = "NotFound"
    exit_code = 66


class Unauthorized(SourceError):
    """The source requires a credential, or rejects the one it received."""

    reason = "Unauthorized"
    exit_code = 77


class GatedRepo(Unauthorized):
    """The Hub requires accepting the repository's conditions first."""

    reason = "GatedRepo"


class Refused(SourceError):
    """The server refuses this request and would refuse it again: 400, 402, 405, 451, 501."""

    reason = "Refused"
    exit_code = 77


class SourceNotAllowed(SourceError):
    """The administrator does not allow the source, or where it leads."""

    reason = "SourceNotAllowed"
    exit_code = 77


class HostilePath(SourceError):
    """The source lists a path that would be written outside the artifact."""

    reason = "HostilePath"
    exit_code = 65


class Untrusted(SourceError):
    """The server's TLS certificate cannot be verified. A later run can succeed, once the CA bundle is in place."""

    reason = "Untrusted"
    exit_code = 69
    retryable = True


class Offline(SourceError):
    """HF_HUB_OFFLINE forbids using the network."""

    reason = "Unreachable"
    exit_code = 69
    retryable = True


class Transient(SourceError):
    """A temporary error, which is retried. `retry_after` is the wait in seconds that the server requested, if any."""

    reason = "Unreachable"
    exit_code = 69
    retryable = True

    def __init__(self, message: str, *, path: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, path=path)
        self.retry_after = retry_after


class Unreachable(Transient):
    """No connection to the server, or the connection was lost."""

    reason = "Unreachable"


class Stalled(Transient):
    """A connection delivered no data for `timeout_stall` seconds."""

    reason = "Stalled"


class BadResponse(Transient):
    """The server failed (5xx), or its response violates the protocol."""

    reason = "BadResponse"


class MirrorFailed(Transient):
    """A mirror does not bring what it was asked for. Another mirror or the origin brings it, at once.

    `notable`: it is news to the user. A mirror that fails on many connections is reported once.
    """

    reason = "MirrorFailed"
    exit_code = 69

    def __init__(self, message: str, *, mirror: str = "", path: str | None = None, notable: bool = False) -> None:
        super().__init__(message, path=path)
        self.mirror = mirror
        self.notable = notable


class RateLimited(Transient):
    """The server limits the request rate (429)."""

    reason = "RateLimited"
    exit_code = 75


class RangesUnsupported(SourceError):
    """The server answered a range request with the whole file. The engine requests the whole file on one connection."""

    reason = "BadResponse"
    exit_code = 69
    retryable = True


class ContentChanged(SourceError):
    """The source now serves other content than it listed, or than the part that was already received."""

    reason = "ContentChanged"
    exit_code = 65


class KeepsChanging(ContentChanged):
    """The source changed again after each new listing: somebody writes there now."""

    reason = "KeepsChanging"
    exit_code = 75
    retryable = True


class OtherRevision(SourceError):
    """The source has other content than was resolved before. Whoever resolved it can do so again."""

    reason = "OtherRevision"
    exit_code = 75
    retryable = True


class LfsPointer(SourceError):
    """The source has a Git LFS pointer, a few lines of text, instead of the file."""

    reason = "LfsPointer"
    exit_code = 65


class DigestMismatch(FetchError):
    """The digest of a file is `actual`, not `expected`."""

    reason = "DigestMismatch"
    exit_code = 65

    def __init__(
        self, message: str, *, path: str | None = None, expected: str | None = None, actual: str | None = None
    ) -> None:
        super().__init__(message, path=path)
        self.expected = expected
        self.actual = actual


class DigestUnavailable(DigestMismatch):
    """A digest is required (`--require-digests`), but neither the source nor the user gives one."""

    reason = "DigestUnavailable"


class SignatureInvalid(DigestMismatch):
    """The signature of an artifact does not verify, or it was not made by who is trusted."""

    reason = "SignatureInvalid"


class Differs(DigestMismatch):
    """A directory to be adopted does not hold the files that the source lists.

    `differences`: the path and the problem of each such file. `ignored`: the paths of files that the source does not list.
    """

    reason = "Differs"

    def __init__(self, message: str, *, differences: tuple[tuple[str, str], ...] = (), ignored: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences
        self.ignored = ignored


class MalformedArchive(FetchError):
    """The archive is damaged or malicious."""

    reason = "MalformedArchive"
    exit_code = 65


class StoreError(FetchError):
    """A local file or directory cannot be read or written."""


class OutOfSpace(StoreError):
    """The volume or its quota is full, or too small for the artifact."""

    reason = "OutOfSpace"
    exit_code = 73


class CannotWrite(StoreError):
    """Permissions, a read-only volume or another file prevent writing."""

    reason = "CannotWrite"
    exit_code = 73


class PinnedArtifact(StoreError):
    """A pin forbids removing the artifact."""

    reason = "Pinned"
    exit_code = 73


class CacheBusy(StoreError):
    """The cache has no room now: artifacts that could make room are in use, recently used or being fetched."""

    reason = "CacheBusy"
    exit_code = 75
    retryable = True


class InUse(StoreError):
    """The artifact is open, held, or being fetched, so it is not removed."""

    reason = "InUse"
    exit_code = 75
    retryable = True


class InUseUnknown(InUse):
    """This filesystem does not tell whether the artifact is open, and it was used recently."""

    reason = "InUseUnknown"


class TooManyOpenFiles(StoreError):
    """This process has reached its limit on open files and sockets (`ulimit -n`). Another run would reach it too."""

    reason = "TooManyOpenFiles"
    exit_code = 78


class LocalIOError(StoreError):
    """Reading or writing failed on the local disk or volume."""

    reason = "IOError"
    exit_code = 74
    retryable = True


class LeaseError(FetchError):
    """The lease on an artifact is held by another process."""

    exit_code = 75
    retryable = True


class LeaseLost(LeaseError):
    """Another process has taken over the lease of this one."""

    reason = "LeaseLost"


class LeaseTimeout(LeaseError):
    """Another process still held the lease after `lease_wait` seconds."""

    reason = "LeaseTimeout"


NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a full filesystem or quota."""
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def from_os_error(error: OSError, *, doing: str, path: str | None = None) -> StoreError:
    """Return the StoreError for a local OSError, by its number; `doing` completes "cannot ...", e.g. "write the staged file".

    The Python class is not reliable: pwrite(2) can raise TimeoutError on NFS and even ConnectionResetError on FUSE.
    """
    where = error.filename if isinstance(error.filename, str) else path
    at = f" {where}" if where else ""
    text = (error.strerror or str(error)).lower()
    if (exhausted := out_of_descriptors(error, doing=f"{doing}{at}", path=path)) is not None:
        return exhausted
    if error.errno in NO_SPACE:
        return OutOfSpace(f"no space left on device: cannot {doing}{at}; free space or use a larger volume", path=path)
    if error.errno == errno.ELOOP:
        return CannotWrite(f"cannot {doing}{at}: a link is in the way; remove the link", path=path)
    if error.errno in _NO_PERMISSION:
        return CannotWrite(f"cannot {doing}{at}: {text}; check the volume's mount options, ownership and fsGroup", path=path)
    return LocalIOError(f"cannot {doing}{at}: {text}; check the node's disk and the volume", path=path)


def out_of_descriptors(error: OSError, *, doing: str, path: str | None = None) -> StoreError | None:
    """Return the error for EMFILE or ENFILE, which say nothing about disk or network; None for any other number."""
    if error.errno == errno.EMFILE:
        advice = "raise the limit with ulimit -n, or lower --max-concurrency"
        return TooManyOpenFiles(f"too many open files: cannot {doing}; {advice}", path=path)
    if error.errno == errno.ENFILE:
        advice = "other processes hold them; raise fs.file-max"
        return LocalIOError(f"too many open files on this machine: cannot {doing}; {advice}", path=path)
    return None
