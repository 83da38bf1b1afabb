"""What the engine says while it works: frozen facts, rendered by nobody here.

Console, log lines, JSON lines and metrics are equal subscribers (`telemetry`); the engine knows none of them. A subscriber
is called on the event loop and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


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


Subscriber = Callable[[Event], None]


def silent(_: Event) -> None:
    """The subscriber of those who do not listen."""
