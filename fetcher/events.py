"""Events of the engine and the loader, as frozen values.

Progress bar, log lines, JSON lines and metrics are equal subscribers (`telemetry`); the engine imports none of them. A
subscriber is called on the event loop, or by one thread at a time, and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal

from fetcher.artifact import ORIGIN
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


@dataclass(frozen=True, slots=True)
class Resolving(Event):
    """The source is asked for its files. `uri` is redacted."""

    uri: str


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """The source has listed `files` files of `bytes` bytes in total at `revision`. `uri` is redacted."""

    uri: str
    revision: str | None
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LeaseWaiting(Event):
    """`holder` is fetching the same artifact: `fetched` of `total` bytes, None if unknown. `waited` is in seconds."""

    holder: str
    waited: float
    fetched: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class TakenOver(Event):
    """The unfinished fetch of a previous owner is continued. `trusted`: it is proven dead, so its files are used directly."""

    holder: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """The plan of the fetch: of `total` bytes in `files` files, `held` are already present and checked."""

    files: int
    total: int
    held: int
    connections: int


@dataclass(frozen=True, slots=True)
class Rechecked(Event):
    """`bytes` of an earlier attempt were read and compared with the journal; `good` of them match."""

    path: str
    bytes: int
    good: int


@dataclass(frozen=True, slots=True)
class Evicted(Event):
    """The artifact `key` of `bytes` bytes was removed from the cache to make room."""

    key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Shared(Event):
    """`path` of `bytes` bytes comes from the artifact `donor` of the same root: a `clone`, `link` or `copy`, compared."""

    path: str
    bytes: int
    how: Literal["clone", "link", "copy"]
    donor: str


@dataclass(frozen=True, slots=True)
class BytesReceived(Event):
    """`bytes` more of `path` were received from `supplier`, the origin or a mirror, and written."""

    path: str
    bytes: int
    supplier: str = ORIGIN


@dataclass(frozen=True, slots=True)
class BytesDiscarded(Event):
    """`bytes` of `path` no longer count as received or held: they will be fetched again."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class BytesHashed(Event):
    """`bytes` more of `path` were hashed."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ConnectionsActive(Event):
    """The number of connections in use has changed to `active`."""

    active: int


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """An attempt failed; the next one follows in `delay` seconds. `reason` is the error's word, `message` its text."""

    reason: str
    message: str
    path: str | None
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class Mismatched(Event):
    """The digest of `path` is wrong; it is fetched again (`attempt` of `limit`)."""

    path: str
    expected: str
    actual: str
    attempt: int
    limit: int


@dataclass(frozen=True, slots=True)
class PeersFound(Event):
    """`peers` of `asked` mirrors have this artifact, or fetch it. `passed_on`: a server of this node passes on what it has."""

    peers: int
    asked: int
    passed_on: bool


@dataclass(frozen=True, slots=True)
class MirrorAvoided(Event):
    """`mirror` failed, or is slow: its ranges come from elsewhere for a while. `message` is the error's text."""

    mirror: str
    message: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Disputed(Event):
    """The digest of `path` is wrong. `bytes` bytes that came from `supplier`, "" if unknown, are fetched again."""

    path: str
    supplier: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MirrorBanned(Event):
    """`mirror` sent other bytes of `path` than the origin publishes. This fetch asks it for nothing more."""

    mirror: str
    path: str


@dataclass(frozen=True, slots=True)
class FileVerified(Event):
    """`path` of `size` bytes is complete."""

    path: str
    size: int
    checked: bool
    """Whether a published or pinned digest was compared."""


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """The artifact at `path` was verified: `chunks` chunks of `bytes` bytes were compared, and `bad` files are damaged now."""

    path: str
    chunks: int
    bytes: int
    bad: int


@dataclass(frozen=True, slots=True)
class FileRepaired(Event):
    """The damaged file `path` of `size` bytes was replaced by a verified one; `fetched` bytes of it came from the source."""

    path: str
    size: int
    fetched: int


@dataclass(frozen=True, slots=True)
class Unpacked(Event):
    """`files` files of `bytes` bytes in total were unpacked from the archive `path`."""

    path: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Linked(Event):
    """`path` now has links to `entries` entries of the local directory or file `source`. Nothing was copied or verified."""

    source: str
    path: str
    entries: int


@dataclass(frozen=True, slots=True)
class Committing(Event):
    """The verified files are being moved to `path`."""

    path: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A problem that does not stop the command. `reason` is a stable word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """A command that runs on and on decided something about `subject`. `message` is a sentence for people."""

    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The artifact is complete at `path`. `cached`: nothing was fetched. `stale`: the source did not answer."""

    path: str
    revision: str | None
    files: int
    bytes: int
    bytes_fetched: int
    bytes_reused: int
    seconds: float
    cached: bool
    verified: bool
    stale: bool
    verified_by: Mapping[str, int] = field(default_factory=dict)
    """The number of files by what each was compared with: `sha256`, ..., `crc64nvme`, ..., `size`."""
    bytes_from: Mapping[str, int] = field(default_factory=dict)
    """The fetched bytes by supplier: `origin`, or the address of a mirror."""


@dataclass(frozen=True, slots=True)
class LoadPlanned(Event):
    """The loader will warm, load or copy `total` bytes in `files` files; `held` are already in place."""

    doing: Literal["warming", "loading", "copying"]
    files: int
    total: int
    held: int


@dataclass(frozen=True, slots=True)
class BytesLoaded(Event):
    """`bytes` more of `path` were warmed, loaded or copied."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadEnded(Event):
    """The work announced by `LoadPlanned` has ended. The caller reports the result."""


@dataclass(frozen=True, slots=True)
class Warmed(Event):
    """The artifact at `path` was warmed: `read` bytes from storage; `resident` bytes are in the page cache, None if unknown."""

    path: str
    bytes: int
    read: int
    resident: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Copied(Event):
    """The copy at `path` is complete. `verified`: every chunk was compared with the manifest. `cached`: it already existed."""

    path: str
    files: int
    bytes: int
    seconds: float
    cached: bool
    verified: bool


@dataclass(frozen=True, slots=True)
class Pinned(Event):
    """The state of the files kept in memory has changed. Sizes in bytes; `resident` is None if unknown."""

    ready: bool
    resident: int | None
    locked: int
    total: int
    rewarmed: int


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """Metrics are served over HTTP at the base URL `where`, under `paths`."""

    where: str
    paths: tuple[str, ...]


Subscriber = Callable[[Event], None]


def silent(_: Event) -> None:
    """Ignore the event: the default subscriber."""
