"""What the controller knows when it decides: the cluster's objects in a pruned form, and what sources answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cluster.resources import (
    CacheArtifactSpec,
    CachePoolSpec,
    CachePoolStatus,
    ModelCacheSpec,
    ModelCacheStatus,
    NodeCacheSpec,
    Phase,
    Resource,
    Warm,
)
from cluster.resources.model import Found

Name = tuple[str, str]
"""Namespace and name; the namespace of objects of the whole cluster is empty."""
Pool = Resource[CachePoolSpec, CachePoolStatus]
Model = Resource[ModelCacheSpec, ModelCacheStatus]


@dataclass(frozen=True, slots=True)
class Observation:
    """An artifact as a node's agent reports it. `content`: the mark of the revision and listing of which its copy is Ready."""

    phase: Phase
    reason: str = ""
    message: str = ""
    content: str = ""
    warm: Warm | None = None
    from_origin: int | None = None
    from_peers: int | None = None


@dataclass(frozen=True, slots=True)
class Cache:
    """A NodeCache. `problem` is the reason and the message of an agent that is not Ready. `ours`: this controller made it.

    `peer_address` and `peer_key` are those of its status; empty without.
    """

    uid: str
    resource_version: str
    ours: bool
    spec: NodeCacheSpec
    observed: Mapping[str, Observation] = field(default_factory=dict)
    used: int = 0
    problem: tuple[str, str] | None = None
    peer_address: str = ""
    peer_key: str = ""


@dataclass(frozen=True, slots=True)
class Peering:
    """What nodes need to know each other: who vouches for them, and the certificate of each node that has asked for one.

    Without an `authority`, nothing is known, and `problem` is the reason and the message why.
    """

    authority: str = ""
    certificates: Mapping[str, str] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """A CacheArtifact. `ours`: this controller made it."""

    uid: str
    ours: bool
    spec: CacheArtifactSpec


@dataclass(frozen=True, slots=True)
class Owned:
    """A volume, a claim or a DaemonSet that the controller made.

    `rendered` is the digest of the document it was made from, `key` the artifact and `model` the ModelCache it serves.
    """

    uid: str
    rendered: str = ""
    key: str = ""
    model: Name = ("", "")
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not ended: the claims it mounts, and its node, which is empty until it is scheduled."""

    claims: tuple[str, ...] = ()
    node: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Any claim, into which a Job can fetch. `made_for`: the ModelCache that the controller made it for; `goes`: with that one.

    `volume`: that it is bound to; empty before.
    """

    uid: str
    made_for: Name | None = None
    goes: bool = False
    volume: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """A Job of ours. `hydration` is what it fetches, `attempt` counts from 1. `ended`: when, in the form of RFC 3339."""

    uid: str
    model: Name
    hydration: str
    attempt: int = 1
    state: Literal["Running", "Complete", "Failed"] = "Running"
    ended: str = ""
    message: str = ""
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the pod of a Job told at its end, or what it waits for. `since` orders the pods of a Job."""

    job: Name
    since: str
    reason: str
    message: str
    ended: bool = True
    retryable: bool = True
    revision: str = ""
    key: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the source of a ModelCache answered.

    `found` stays when a later question fails, whose `reason` and `message` are then kept beside it. `digests`: each file has a
    published digest. `generation` is that of the ModelCache when it was asked.
    """

    found: Found | None = None
    digests: bool = False
    reason: str = ""
    message: str = ""
    retryable: bool = True
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """Objects that exist and cannot be read: what depends on them stays as it is."""

    pools: frozenset[str] = frozenset()
    models: frozenset[Name] = frozenset()
    caches: frozenset[str] = frozenset()
    artifacts: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    pods_of: frozenset[str] = frozenset()
    """Namespaces with a pod that cannot be read."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The sign of life of a node's agent. `renewed` is another text after each renewal."""

    uid: str
    renewed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything at one moment. `alive` are nodes whose agent renews its Lease."""

    pools: Mapping[str, Pool]
    models: Mapping[Name, Model]
    nodes: Mapping[str, Mapping[str, str]]
    """Each node's labels."""
    namespaces: Mapping[str, Mapping[str, str]]
    """Each namespace's labels."""
    caches: Mapping[str, Cache] = field(default_factory=dict)
    artifacts: Mapping[str, Described] = field(default_factory=dict)
    """By the names of the CacheArtifacts."""
    alive: frozenset[str] = frozenset()
    leases: Mapping[Name, Lease] = field(default_factory=dict)
    """Of all agents, also of nodes that are gone."""
    pods: Mapping[Name, Pod] = field(default_factory=dict)
    claims: Mapping[Name, Owned] = field(default_factory=dict)
    volumes: Mapping[str, Owned] = field(default_factory=dict)
    daemon_sets: Mapping[str, Owned] = field(default_factory=dict)
    targets: Mapping[Name, Target] = field(default_factory=dict)
    fetches: Mapping[Name, Fetch] = field(default_factory=dict)
    told: Mapping[Name, Told] = field(default_factory=dict)
    """Of each pod of a Job."""
    retained: frozenset[str] = frozenset()
    """Volumes of claims that we made, which stay when their claims go."""
    resolutions: Mapping[Name, Resolution] = field(default_factory=dict)
    refusals: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """What the API server refused to make: kind, namespace and name, and its sentence."""
    yielded: frozenset[tuple[str, str]] = frozenset()
    """Key and node of fetches that failed and gave their turn to another node."""
    peering: Peering = field(default_factory=Peering)
    unknown: Unknown = field(default_factory=Unknown)
