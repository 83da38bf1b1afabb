"""A LocalModelNode as the NodeCache that it means, and a model of it as a ModelCache. Pure.

So one agent serves both. What KServe's resources cannot say is decided here: what no service uses makes room when it was not
used for long, the smallest limit of the node's groups counts, and a root on the node's own filesystem is allowed, since
KServe's usual one is there; a fifth of such a filesystem stays free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cluster.amounts import bytes_of
from cluster.kserve.agent import Answers, Artifact, Identity
from cluster.kserve.holding import Standing
from cluster.kserve.names import MODELS
from cluster.kserve.world import Group
from cluster.resources import CACHE_ARTIFACT, MODEL_CACHE, NODE_CACHE, CacheArtifactSpec, Entry, NodeCacheSpec, encoded
from cluster.resources.artifact import mark_of, name_of

POOL = "kserve"
_NONE = Standing()


@dataclass(frozen=True, slots=True)
class Pin:
    """What an artifact is: as it lies there, or as its source listed it. `bytes` of its files."""

    revision: str | None
    listing_digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Meant:
    """What a node shall have, and by name the CacheArtifacts of its entries."""

    spec: NodeCacheSpec
    artifacts: Mapping[str, CacheArtifactSpec]


def lies_elsewhere(artifact: Artifact, groups: Mapping[str, Group], root: PurePosixPath) -> bool:
    """Whether all node groups of an artifact have another directory than `root`: then pods would look for it in vain.

    A group that is not known says nothing.
    """
    known = [groups[name] for name in artifact.groups if name in groups]
    return bool(known) and len(known) == len(artifact.groups) and all(_root_of(each) != root for each in known)


def spec_of(
    artifacts: Iterable[Artifact],
    pins: Mapping[str, Pin],
    answers: Answers,
    groups: Iterable[Group],
    standing: Standing = _NONE,
    *,
    root: PurePosixPath,
    allowed: tuple[str, ...],
    job_namespace: str,
) -> Meant:
    """Return what the node shall have: the artifacts of which it is known what they are. `standing`: what of it makes no room.

    Raises ValueError for a limit that is none.
    """
    limits = [bytes_of(each.spec.storage_limit) for each in groups if each.spec.storage_limit and _root_of(each) == root]
    found = [
        CacheArtifactSpec(
            pool=POOL,
            key=each.key,
            namespace=each.fetched_as(answers).namespace or job_namespace,
            model=each.key,
            bytes=pins[each.key].bytes,
            revision=pins[each.key].revision,
            listing_digest=pins[each.key].listing_digest,
        )
        for each in artifacts
        if each.key in pins
    ]
    marks = {each.key: mark_of(each) for each in found}
    spec = NodeCacheSpec(
        POOL,
        limit=str(min(limits)) if limits else None,
        allow_root_filesystem=True,
        allowed_sources=allowed,
        artifacts={
            key: Entry(mark, "Always" if key in standing.unknown else None, held=key in standing.used or None, turn=True)
            for key, mark in marks.items()
        },
    )
    return Meant(spec, {name_of(each.key, marks[each.key]): each for each in found})


def node_document(
    name: str, uid: str, version: int, spec: NodeCacheSpec, status: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the NodeCache of a node, as the API server would send it."""
    metadata = {"name": name, "uid": uid, "resourceVersion": str(version), "generation": version}
    return {
        "apiVersion": NODE_CACHE.api_version,
        "kind": NODE_CACHE.name,
        "metadata": metadata,
        "spec": encoded(spec),
        "status": status or {},
    }


def artifact_document(name: str, spec: CacheArtifactSpec) -> dict[str, Any]:
    """Return the CacheArtifact of an entry, as the API server would send it."""
    kind = CACHE_ARTIFACT
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}, "spec": encoded(spec)}


def model_document(artifact: Artifact, identity: Identity, namespace: str) -> dict[str, Any]:
    """Return the ModelCache of an artifact that is fetched as `identity`. Its generation changes with the identity."""
    name = secret_of(artifact, identity)
    secret = {"auth": {"secretRef": {"name": name}}} if name is not None else {}
    uid = "/".join((identity.service_account or "", identity.storage_key or "", repr(identity.parameters)))
    return {
        "apiVersion": MODEL_CACHE.api_version,
        "kind": MODEL_CACHE.name,
        "metadata": {"name": artifact.key, "namespace": namespace, "uid": uid, "generation": 1},
        "spec": {"source": {"uri": artifact.uri}, "placement": {"pools": [{"name": POOL}]}, **secret},
    }


def secret_of(artifact: Artifact, identity: Identity) -> str | None:
    """Return the name of the Secret by which a ModelCache of the artifact means its credential; None without one.

    There is no such Secret: what is in it comes from KServe's, and the key of the artifact at its end says whose it is.
    """
    given = identity.storage_key or identity.service_account
    return f"{given}.{artifact.key}" if given else None


def _root_of(group: Group) -> PurePosixPath | None:
    """The directory of models of a group: below the path of its volume."""
    spec = group.spec.persistent_volume_spec
    place = spec.get("local") or spec.get("hostPath") or {}
    path = place.get("path") if isinstance(place, Mapping) else None
    return PurePosixPath(path) / MODELS if isinstance(path, str) else None
