"""Short words for a given cluster: pools, models and nodes as the controller observes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.controller.daemon_set import Agents
from cluster.controller.planning import Plan, plan
from cluster.controller.world import Cache, Described, Model, Name, Observation, Pool, Resolution, World
from cluster.resources import (
    COPIES,
    CacheArtifactSpec,
    CachePoolSpec,
    CachePoolStatus,
    Entry,
    LabelSelector,
    Metadata,
    ModelCacheSpec,
    ModelCacheStatus,
    NodeCacheSpec,
    Resource,
)
from cluster.resources.artifact import content_of, mark_of, name_of
from cluster.resources.model import ClaimPlacement, ClaimTemplate, Found, Origin, Placement, PoolPlacement
from fetcher.artifact import ArtifactRef

AGENTS = Agents("example.com/weightlift:0.1.0", "weightlift")
CONTENT = content_of("r1", "d")
MOMENT = "2026-01-01T00:00:00Z"
EVERYONE = LabelSelector()


def pool(name: str = "p", *, created: str = "2025-01-01T00:00:00Z", **spec: Any) -> Pool:
    wanted = CachePoolSpec(**{"root": "/models", "namespace_selector": EVERYONE, **spec})
    return Resource(Metadata(name, uid=f"uid-{name}", generation=1, creation_timestamp=created), wanted, CachePoolStatus())


def model(
    name: str = "m",
    namespace: str = "a",
    *,
    uri: str = "hf://org/m",
    revision: str | None = None,
    place: PoolPlacement | ClaimPlacement | ClaimTemplate | None = None,
    created: str = "2025-01-01T00:00:00Z",
    deleting: str = "",
    status: ModelCacheStatus | None = None,
    **spec: Any,
) -> Model:
    metadata = Metadata(name, namespace, f"uid-{name}", "1", 1, created, deleting)
    wanted = ModelCacheSpec(Origin(uri, revision), _placement(place or PoolPlacement("p")), **spec)
    return Resource(metadata, wanted, status or ModelCacheStatus())


def _placement(place: PoolPlacement | ClaimPlacement | ClaimTemplate) -> Placement:
    match place:
        case PoolPlacement():
            return Placement((place,))
        case ClaimPlacement():
            return Placement(claim=place)
        case ClaimTemplate():
            return Placement(claim_template=place)


def found(of: Model, *, revision: str | None = "r1", digest: str = "d") -> Resolution:
    source = of.spec.source
    key = ArtifactRef(source.uri, source.revision, source.include, source.exclude).key
    return Resolution(Found(key, 100, 2, revision, digest), digests=True, generation=1)


def key_of(uri: str = "hf://org/m", revision: str | None = None) -> str:
    return ArtifactRef(uri, revision).key


def cache(
    *,
    pool: str = "p",
    ours: bool = True,
    problem: tuple[str, str] | None = None,
    observed: Mapping[str, Observation] | None = None,
) -> Cache:
    """A NodeCache without an artifact that the node shall have."""
    return Cache("uid", "7", ours, NodeCacheSpec(pool), observed or {}, 7, problem)


def reporting(
    phase: Any,
    key: str | None = None,
    *,
    turn: bool = True,
    reason: str = "",
    message: str = "",
    warm: Any = None,
    **spec: Any,
) -> Cache:
    """The NodeCache of a node that reports one phase of the one artifact that it shall have."""
    of = key or key_of()
    seen = Observation(phase, reason, message, CONTENT if phase in COPIES else "", warm)
    entry = Entry(mark_of(described(of)), turn=turn or None)
    return Cache("uid", "7", True, NodeCacheSpec("p", artifacts={of: entry}, **spec), {of: seen}, 7)


def described(key: str | None = None, pool: str = "p", namespace: str = "a", model: str = "m") -> CacheArtifactSpec:
    """What the CacheArtifact of a found model says."""
    return CacheArtifactSpec(pool, key or key_of(), namespace, model, 100, "r1", "d")


def world(
    models: Iterable[Model] = (),
    pools: Iterable[Pool] | None = None,
    *,
    nodes: int | Iterable[str] = 3,
    caches: Mapping[str, Cache] | None = None,
    resolutions: Mapping[Name, Resolution] | None = None,
    alive: Iterable[str] | None = None,
    **more: Any,
) -> World:
    """A cluster with one pool of all nodes, which all live, and with models whose sources have answered."""
    names = [f"n{number}" for number in range(1, nodes + 1)] if isinstance(nodes, int) else list(nodes)
    by_name = {(each.metadata.namespace, each.metadata.name): each for each in models}
    answers = {name: found(each) for name, each in by_name.items()} if resolutions is None else resolutions
    given: dict[str, Any] = {
        "pools": {each.metadata.name: each for each in (pools if pools is not None else [pool()])},
        "models": by_name,
        "nodes": {name: {} for name in names},
        "namespaces": {name[0]: {} for name in by_name} | {"a": {}, "b": {}},
        "caches": caches or {},
        "artifacts": {
            name_of(each.key, mark_of(each)): Described("uid", True, each) for each in [described()] if by_name or caches
        },
        "alive": frozenset(names if alive is None else alive),
        "resolutions": answers,
        **more,
    }
    return World(**given)


def planned(given: World) -> Plan:
    return plan(given, AGENTS, moment=MOMENT)


def told(of: Plan, name: Name = ("a", "m")) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition of a ModelCache."""
    return {each.type: (each.status, each.reason) for each in of.models[name].conditions}


def sentence(of: Plan, kind: str, name: Name = ("a", "m")) -> str:
    return next(each.message for each in of.models[name].conditions if each.type == kind)


def entries(of: Plan) -> dict[str, list[str]]:
    """The keys that each node shall have."""
    return {node: sorted(spec.artifacts) for node, spec in of.specs.items()}
