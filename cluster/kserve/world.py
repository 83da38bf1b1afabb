"""What KServe's manager knows of the cluster, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.kserve.kinds import (
    LOCAL_MODEL_CACHE,
    LOCAL_MODEL_NAMESPACE_CACHE,
    LocalModelCacheSpec,
    LocalModelCacheStatus,
    LocalModelNodeGroupSpec,
    LocalModelNodeGroupStatus,
    LocalModelNodeSpec,
    LocalModelNodeStatus,
)
from cluster.kserve.names import FINALIZER, NAMESPACE_FINALIZER
from cluster.resources import Kind, Metadata, Resource

Cache = Resource[LocalModelCacheSpec, LocalModelCacheStatus]
Group = Resource[LocalModelNodeGroupSpec, LocalModelNodeGroupStatus]
LocalNode = Resource[LocalModelNodeSpec, LocalModelNodeStatus]
Id = tuple[str, str]
"""Namespace and name. The namespace of what belongs to the whole cluster is empty."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster."""

    name: str
    ready: bool
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that may use a model. `kind`: KServe has one for models in general, and one for language models.

    `adapters`: the caches of its LoRA adapters.
    """

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["InferenceService", "LLMInferenceService"] = "InferenceService"
    adapters: frozenset[Id] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """A volume or a claim that exists. `owner`: the UID of its controller. `partner`: the claim of a volume, or the reverse.

    `ours`: made by this manager. `leaving`: it is being deleted. `released`: a volume whose claim is gone, which takes no other
    claim until it is freed.
    """

    namespace: str
    name: str
    uid: str
    owner: str = ""
    partner: Id | None = None
    ours: bool = False
    leaving: bool = False
    released: bool = False
    modes: tuple[str, ...] = ()
    """The access modes of a claim."""
    block: bool = False
    room: int | None = None
    """Bytes that a claim has, or asks for as long as it is not bound."""

    @property
    def id(self) -> Id:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Import:
    """A Job of the name of an import. `ended` is in the form of RFC 3339, and empty before."""

    namespace: str
    name: str
    uid: str
    owner: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    state: Literal["Pending", "Running", "Complete", "Failed"] = "Pending"
    ended: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Importing:
    """With what models are imported into shared claims: the image, and the prefixes of `sources` that are allowed."""

    image: str
    sources: tuple[str, ...]
    hub_endpoint: str | None = None
    allow_loopback: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Of KServe's configuration: where claims for downloads are, and whether it leaves volumes for services to others."""

    job_namespace: str
    disable_volume_management: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Objects of which some field cannot be read. What depends on them stays as it is.

    `users`: namespaces with services that may use any cache.
    """

    caches: frozenset[Id] = frozenset()
    groups: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class World:
    """All that the manager decides with. `caches` are by `id_of`."""

    options: Options
    caches: Mapping[Id, Cache] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    local_nodes: Mapping[str, LocalNode] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    volumes: Mapping[str, Stored] = field(default_factory=dict)
    claims: Mapping[Id, Stored] = field(default_factory=dict)
    unreadable: Unreadable = field(default_factory=Unreadable)
    imports: Mapping[Id, Import] = field(default_factory=dict)
    importing: Importing | None = None
    """None: caches in shared claims are left to others."""
    moment: str = ""
    """The present time in the form of RFC 3339."""

    @property
    def managed(self) -> list[Cache]:
        """The caches to act on, in one order for all: those that can be read, and whose model a node group holds."""
        there = (each for key, each in self.caches.items() if key not in self.unreadable.caches)
        return sorted((each for each in there if each.spec.pvc_ref is None), key=lambda each: id_of(each.metadata))

    @property
    def shared(self) -> list[Cache]:
        """The caches in shared claims to act on, in one order for all."""
        if self.importing is None:
            return []
        there = [each for key, each in self.caches.items() if key not in self.unreadable.caches and each.metadata.namespace]
        return sorted((each for each in there if each.spec.pvc_ref is not None), key=lambda each: id_of(each.metadata))

    @property
    def known_groups(self) -> dict[str, Group]:
        return {name: each for name, each in self.groups.items() if name not in self.unreadable.groups}


def id_of(metadata: Metadata) -> Id:
    return metadata.namespace, metadata.name


def kind_of(cache: Cache) -> Kind[LocalModelCacheSpec, LocalModelCacheStatus]:
    return LOCAL_MODEL_NAMESPACE_CACHE if cache.metadata.namespace else LOCAL_MODEL_CACHE


def finalizer_of(cache: Cache) -> str:
    return NAMESPACE_FINALIZER if cache.metadata.namespace else FINALIZER


def leaving(cache: Cache) -> bool:
    """Whether the cache is being deleted."""
    return bool(cache.metadata.deletion_timestamp)


def owner_of(cache: Cache) -> dict[str, Any]:
    """Return the reference by which Kubernetes removes what belongs to `cache` with it."""
    kind = kind_of(cache)
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": cache.metadata.name,
        "uid": cache.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
