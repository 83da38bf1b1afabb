"""What the agent knows, as frozen values: what lies in the root, what it remembers, what it does now.

Times are seconds of this process's monotonic clock, except `last_used`, which is of the volume's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cluster.resources.node import Retain, Warm

HOLDER = "weightlift-agent"
"""The name of our holds in the cache: what is held is never evicted, by whomever."""

Proof = Literal["Digest", "Checksum", "None"]
"""What each file of an artifact was compared with when it was fetched: the words of a ModelCache's verification."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One artifact that the node shall have: an entry of its NodeCache, and what the CacheArtifact says that it is.

    `turn`: the node may fetch it now. `held`: a pod uses it, so it is never evicted. `bytes` is the size of all files.
    """

    key: str
    namespace: str
    model: str
    bytes: int
    revision: str | None = None
    listing_digest: str = ""
    retain: Retain = "WhenPossible"
    held: bool = False
    turn: bool = True
    warm: Warm | None = None


@dataclass(frozen=True, slots=True)
class Lying:
    """A complete artifact in the root, whose files all have their sizes. `listing_digest` is that of its manifest.

    `allocated` is in bytes, `last_used` in seconds since 1970. `ours`: we hold it. `kept`: somebody holds or pins it.
    """

    key: str
    revision: str | None
    listing_digest: str
    proof: Proof
    allocated: int = 0
    last_used: float = 0.0
    ours: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the root cannot be used. `reason` is a word, `message` says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Survey:
    """The root at one moment, in bytes. `capacity`: what models may occupy. With a `problem` nothing is known of it."""

    lying: Mapping[str, Lying] = field(default_factory=dict)
    used: int = 0
    capacity: int = 0
    problem: Problem | None = None

    @property
    def room(self) -> int:
        """Bytes that fit without evicting anything."""
        return max(0, self.capacity - self.used)


@dataclass(frozen=True, slots=True)
class Room:
    """The node's memory that belongs to models: `budget` in bytes. `files`: the root itself lies in it."""

    budget: int = 0
    files: bool = False


@dataclass(frozen=True, slots=True)
class Warmth:
    """How much of an artifact is in memory, as its holder measured it last, in bytes.

    `whole`: all of it was, since the holder began. `reread`: what was reclaimed and read again. `problem`: why it is not as
    warm as it shall be; with `idle`, nothing is tried for the time being.
    """

    total: int = 0
    resident: int = 0
    locked: int = 0
    reread: int = 0
    whole: bool = False
    problem: Problem | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last failure of an entry: `wanted` as it was then. It counts until `until`, or until what it rests on changes.

    `versions` are those of the ModelCache and the Secret that were used. `failures` is how often it failed in a row.
    """

    wanted: Wanted
    reason: str
    message: str
    final: bool
    failures: int
    until: float
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What this process remembers of its NodeCache `uid`; keys are cache keys.

    `seen`: entries that were there. `gone`: entries that were missing from it, and when that was first seen. `unwanted`: those
    of a second such look, later. `strays`: what we hold though this process has never seen its entry, and since when that is
    known. `fetched`: what we fetched for an entry. `evicted`: what made room for others. `confirmed`: the revision and listing
    that a fetch compared. `damaged`: what a scrub found. `brought`: bytes that the source and peers sent for a copy that was
    fetched with peers.
    """

    uid: str = ""
    seen: frozenset[str] = frozenset()
    gone: Mapping[str, float] = field(default_factory=dict)
    unwanted: Mapping[str, float] = field(default_factory=dict)
    strays: Mapping[str, float] = field(default_factory=dict)
    fetched: frozenset[str] = frozenset()
    evicted: frozenset[str] = frozenset()
    confirmed: Mapping[str, tuple[str | None, str]] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    brought: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    attempts: Mapping[str, Attempt] = field(default_factory=dict)

    @property
    def orphans(self) -> frozenset[str]:
        """What was fetched for an entry that is gone: the only artifacts that the agent removes by itself."""
        return self.fetched & self.unwanted.keys()


@dataclass(frozen=True, slots=True)
class Announced:
    """What the status says: where the node serves its peers, and the public key that it wants a certificate for."""

    address: str
    key: str


@dataclass(frozen=True, slots=True)
class Job:
    """What the agent does now: one fetch or repair at a time."""

    wanted: Wanted
    kind: Literal["fetch", "repair"]
