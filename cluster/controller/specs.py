"""What each node shall have: the specification of every NodeCache. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.amounts import bytes_of
from cluster.controller.admitting import Verdict
from cluster.controller.placing import Assignment, chosen
from cluster.controller.sharing import Artifact, Shared
from cluster.controller.waves import Wave, wave
from cluster.controller.world import Cache, Name, Observation, Pool, World
from cluster.resources import COPIES, NodeCacheSpec, Wanted

_NOWHERE: Mapping[str, Wanted] = {}


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an artifact shall be, for each ModelCache that wants it, and what the nodes report of it."""

    artifact: Artifact
    nodes: Mapping[Name, tuple[str, ...]]
    observed: Mapping[str, Observation]


@dataclass(frozen=True, slots=True)
class Specs:
    """The wanted NodeCaches by node, those to remove, and what is told and remembered of it."""

    wanted: Mapping[str, NodeCacheSpec]
    removed: tuple[str, ...]
    placed: Mapping[Name, Placed]
    yielded: frozenset[tuple[str, str]]


def specs(world: World, verdicts: Mapping[Name, Verdict], assignment: Assignment, shared: Shared) -> Specs:
    """Decide what every node of every pool shall have."""
    users, present = _users(world), _present(world)
    entries: dict[str, list[Wanted]] = {node: [] for nodes in assignment.nodes.values() for node in nodes}
    placed: dict[Name, Placed] = {}
    yielded: set[tuple[str, str]] = set()
    for artifact in shared.artifacts:
        nodes, pool = assignment.nodes.get(artifact.pool, ()), world.pools[artifact.pool]
        there = present.get(artifact.key, _NOWHERE)
        found = _placed(world, artifact, nodes, there)
        placed.update(dict.fromkeys(artifact.members, found))
        held = users.get(artifact.key, frozenset())
        yielded |= _enter(world, pool, found, held, there, entries)
    kept = _models_to_keep(world, verdicts)
    if kept or users:
        for node, wanted in entries.items():
            wanted.extend(_kept(world.caches.get(node), node, wanted, kept, users))
    result = {
        node: _spec(world.pools[name], entries[node])
        for name, nodes in assignment.nodes.items()
        for node in nodes
        if _may_write(world, node)
    }
    return Specs(result, tuple(_removed(world, entries)), placed, frozenset(yielded))


def _placed(world: World, artifact: Artifact, nodes: tuple[str, ...], there: Mapping[str, Wanted]) -> Placed:
    key, revision = artifact.key, artifact.found.revision or ""
    observed: dict[str, Observation] = {}
    for node in nodes:
        cache = world.caches.get(node)
        if cache is not None and (seen := cache.observed.get(key)) is not None and _is_current(seen, revision):
            observed[node] = seen
    ready = {node for node, seen in observed.items() if seen.phase in COPIES}
    places: dict[Name, tuple[str, ...]] = {}
    for member in artifact.members:
        placement = world.models[member].spec.placement.pools[0]
        # Everybody's copies count: a second ModelCache with a count takes those that are there.
        places[member] = chosen(placement, key, nodes, alive=world.alive, ready=ready, wanted=there)
    return Placed(artifact, places, observed)


def _is_current(seen: Observation, revision: str) -> bool:
    """Whether a report is about the wanted revision. A copy of another one that is Ready is not the copy that is wanted."""
    return seen.phase not in COPIES or not seen.revision or seen.revision == revision


def _present(world: World) -> Mapping[str, Mapping[str, Wanted]]:
    """The present entries by key and node."""
    present: dict[str, dict[str, Wanted]] = {}
    for node, cache in world.caches.items():
        for each in cache.spec.artifacts:
            present.setdefault(each.key, {})[node] = each
    return present


def _enter(
    world: World,
    pool: Pool,
    placed: Placed,
    held: Collection[str],
    there: Mapping[str, Wanted],
    entries: Mapping[str, list[Wanted]],
) -> set[tuple[str, str]]:
    """Add the artifact to its nodes; return who gave a turn away, now or before."""
    artifact = placed.artifact
    nodes = sorted({node for each in placed.nodes.values() for node in each})
    everywhere = "" in held  # a pod that is not scheduled yet can come to any node
    before = {node for node, entry in there.items() if entry.turn}
    earlier = {node for node in nodes if (artifact.key, node) in world.yielded}
    turns: Wave = wave(
        artifact.key,
        nodes,
        placed.observed,
        limit=pool.spec.max_fetching,
        alive=world.alive,
        held=nodes if everywhere else held,
        before=before,
        yielded=earlier,
    )
    namespace, model = artifact.owner
    found = artifact.found
    variants = {
        (turn, use): Wanted(
            artifact.key,
            namespace,
            model,
            found.bytes,
            found.revision,
            found.listing_digest,
            artifact.retain,
            use,
            turn,
            artifact.warm,
        )
        for turn in (False, True)
        for use in (False, True)
    }
    for node in nodes:
        entries[node].append(variants[node in turns.turns, everywhere or node in held])
    return {(artifact.key, node) for node in turns.yielding | earlier}


def _users(world: World) -> Mapping[str, frozenset[str]]:
    """The nodes of the pods that mount each artifact; an empty name for a pod that has no node yet."""
    users: dict[str, set[str]] = {}
    for (namespace, _), pod in world.pods.items():
        for each in pod.claims:
            claim = world.claims.get((namespace, each))
            if claim is not None and claim.key:
                users.setdefault(claim.key, set()).add(pod.node)
    return {key: frozenset(nodes) for key, nodes in users.items()}


def _models_to_keep(world: World, verdicts: Mapping[Name, Verdict]) -> frozenset[Name]:
    """ModelCaches of which it is not known what they want: unreadable, or their source has not answered yet."""
    return frozenset(
        name
        for name, verdict in verdicts.items()
        if verdict.unknown
        or (verdict.pool is not None and ((found := world.resolutions.get(name)) is None or found.found is None))
    )


def _kept(
    cache: Cache | None,
    node: str,
    wanted: Collection[Wanted],
    kept: Collection[Name],
    users: Mapping[str, frozenset[str]],
) -> list[Wanted]:
    """Entries that stay although nobody is known to want them: of unknown ModelCaches, and what a pod of the node uses."""
    if cache is None:
        return []
    keys = {each.key for each in wanted}
    return [
        replace(each, held=used)
        for each in cache.spec.artifacts
        if each.key not in keys and ((used := node in users.get(each.key, ())) or (each.namespace, each.model) in kept)
    ]


def _spec(pool: Pool, wanted: list[Wanted]) -> NodeCacheSpec:
    spec = pool.spec
    return NodeCacheSpec(
        pool.metadata.name,
        spec.limit,
        spec.min_free,
        spec.allow_root_filesystem,
        spec.medium,
        bytes_of(spec.memory.budget),
        spec.allowed_sources,
        tuple(sorted(wanted, key=lambda each: each.key)),
    )


def _may_write(world: World, node: str) -> bool:
    """Whether the NodeCache is ours, can be read, and belongs to no pool that cannot."""
    cache = world.caches.get(node)
    if node in world.unknown.caches:
        return False
    return cache is None or (cache.ours and cache.spec.pool not in world.unknown.pools)


def _removed(world: World, entries: Collection[str]) -> Iterable[str]:
    return (
        node
        for node, cache in world.caches.items()
        if node not in entries and node not in world.unknown.nodes and cache.ours and _may_write(world, node)
    )
