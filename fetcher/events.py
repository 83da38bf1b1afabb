"""What the engine and the loader say while they work: frozen facts, rendered by nobody here.

Console, log lines, JSON lines and metrics are equal subscribers (`telemetry`); the engine knows none of them. A subscriber
is called on the event loop, or by one thread at a time, and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


@dataclass(frozen=True, slots=True)
class Resolving(Event):
    """The source is being asked. `uri` is redacted."""

    uri: str


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    uri: str
    revision: str | None
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LeaseWaiting(Event):
    """Another owner is fetching the same artifact. `fetched` of `total` bytes are done there, as far as it says."""

    holder: str
    waited: float
    fetched: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class TakenOver(Event):
    """A former owner's staging is continued. `trusted`: it is proven dead, so its files are used as they are."""

    holder: str
    trusted: bool


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """Of `total` bytes in `files` files, `held` are already here and checked."""

    files: int
    total: int
    held: int
    connections: int


@dataclass(frozen=True, slots=True)
class Rechecked(Event):
    """`bytes` of an earlier attempt, read and compared with the journal; `good` of them match."""

    path: str
    bytes: int
    good: int


@dataclass(frozen=True, slots=True)
class BytesReceived(Event):
    """`bytes` more of `path` are received and written."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class BytesDiscarded(Event):
    """`bytes` of `path` that had counted as received or held do so no longer: they will be fetched again."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class BytesHashed(Event):
    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ConnectionsActive(Event):
    active: int


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """A try failed and another follows in `delay` seconds. `reason` is the error's word, `message` its text."""

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
class FileVerified(Event):
    path: str
    size: int
    checked: bool
    """Whether a published or pinned digest was compared."""


@dataclass(frozen=True, slots=True)
class Unpacked(Event):
    """`files` of `bytes` together were taken out of the archive `path`."""

    path: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Linked(Event):
    """`entries` of the local directory or file `source` have links in `path` now: nothing was copied or verified."""

    source: str
    path: str
    entries: int


@dataclass(frozen=True, slots=True)
class Committing(Event):
    path: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something a person should know though the fetch goes on. `reason` is a stable word."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The artifact is complete at `path`."""

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


@dataclass(frozen=True, slots=True)
class LoadPlanned(Event):
    """The loader brings `total` bytes in `files` files into memory, or to a place near it; `held` are there already."""

    doing: Literal["warming", "loading", "copying"]
    files: int
    total: int
    held: int


@dataclass(frozen=True, slots=True)
class BytesLoaded(Event):
    """`bytes` more of `path` are where they should be."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class LoadEnded(Event):
    """What `LoadPlanned` began is over; the result is told by whoever asked for it."""


@dataclass(frozen=True, slots=True)
class Warmed(Event):
    """What a fetch placed at `path` is in the page cache; `read` of its bytes had to be read. `resident`: None when nothing
    tells."""

    path: str
    bytes: int
    read: int
    resident: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Copied(Event):
    """The copy is complete at `path`. `verified`: every chunk was compared with the manifest. `cached`: it was there before."""

    path: str
    files: int
    bytes: int
    seconds: float
    cached: bool
    verified: bool


@dataclass(frozen=True, slots=True)
class Pinned(Event):
    """How things stand with what is kept in memory; told when that changes. `resident`: None when nothing tells."""

    ready: bool
    resident: int | None
    locked: int
    total: int
    rewarmed: int


@dataclass(frozen=True, slots=True)
class Listening(Event):
    """Over HTTP, at `where` and these paths, numbers can be asked for."""

    where: str
    paths: tuple[str, ...]


Subscriber = Callable[[Event], None]


def silent(_: Event) -> None:
    """The subscriber of those who do not listen."""
