"""What each node shall have: the specification of every NodeCache. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.amounts import bytes_of
from cluster.controller.admitting import Verdict
from cluster.controller.neighbours import Candidate, neighbours
from cluster.controller.placing import Assignment, chosen
from cluster.controller.sharing import Artifact, Shared
from cluster.controller.waves import Wave, wave
from cluster.controller.world import Name, Observation, Pool, World
from cluster.resources import COPIES, Entry, NodeCacheSpec, Peers
from cluster.resources.artifact import content_of, mark_of, name_of

_NOWHERE: Mapping[str, Entry] = {}
_NO_LABELS: Mapping[str, str] = {}
_ZONE = "topology.kubernetes.io/zone"
_INTERVALS = (10, 20, 50, 100, 200, 500, 1000)
"""Steps, so that a node more or less does not change what every NodeCache says."""
_STATUSES = 10
"""Statuses that all nodes together write in a second: an object of 200 entries is some 20 KB in etcd."""


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
    entries: dict[str, dict[str, Entry]] = {node: {} for nodes in assignment.nodes.values() for node in nodes}
    met: dict[str, dict[str, tuple[str, ...]]] = {node: {} for node in entries}
    placed: dict[Name, Placed] = {}
    yielded: set[tuple[str, str]] = set()
    for artifact in shared.artifacts:
        nodes, pool = assignment.nodes.get(artifact.pool, ()), world.pools[artifact.pool]
        there = present.get(artifact.key, _NOWHERE)
        found = _placed(world, artifact, nodes, there)
        placed.update(dict.fromkeys(artifact.members, found))
        held = users.get(artifact.key, frozenset())
        yielded |= _enter(world, pool, found, held, there, entries)
        if pool.spec.peers.mode == "On":
            _introduce(world, found, entries, met)
    kept = _models_to_keep(world, verdicts)
    if kept or users:
        for node, wanted in entries.items():
            wanted.update(_kept(world, node, wanted, kept, users))
    interval = status_interval(len(entries))
    result = {
        node: _spec(world.pools[name], entries[node], interval, _peers(world, world.pools[name], node, met[node]))
        for name, nodes in assignment.nodes.items()
        for node in nodes
        if _may_write(world, node)
    }
    return Specs(result, tuple(_removed(world, entries)), placed, frozenset(yielded))


def status_interval(nodes: int) -> int | None:
    """Return the seconds between two statuses of one of so many nodes; None if agents need not be told."""
    if nodes <= _STATUSES * _INTERVALS[0]:
        return None
    return next((each for each in _INTERVALS if each * _STATUSES >= nodes), _INTERVALS[-1])


def _placed(world: World, artifact: Artifact, nodes: tuple[str, ...], there: Mapping[str, Entry]) -> Placed:
    key, content = artifact.key, content_of(artifact.found.revision, artifact.found.listing_digest)
    observed: dict[str, Observation] = {}
    for node in nodes:
        cache = world.caches.get(node)
        if cache is not None and (seen := cache.observed.get(key)) is not None and _is_current(seen, content):
            observed[node] = seen
    ready = {node for node, seen in observed.items() if seen.phase in COPIES}
    places: dict[Name, tuple[str, ...]] = {}
    for member in artifact.members:
        placement = world.models[member].spec.placement.pools[0]
        # Everybody's copies count: a second ModelCache with a count takes those that are there.
        places[member] = chosen(placement, key, nodes, alive=world.alive, ready=ready, wanted=there)
    return Placed(artifact, places, observed)


def _is_current(seen: Observation, content: str) -> bool:
    """Whether a report is about what is wanted. A copy of something else that is Ready is not the copy that is wanted."""
    return seen.phase not in COPIES or seen.content == content


def _present(world: World) -> Mapping[str, Mapping[str, Entry]]:
    """The present entries by key and node."""
    present: dict[str, dict[str, Entry]] = {}
    for node, cache in world.caches.items():
        for key, each in cache.spec.artifacts.items():
            present.setdefault(key, {})[node] = each
    return present


def _enter(
    world: World,
    pool: Pool,
    placed: Placed,
    held: Collection[str],
    there: Mapping[str, Entry],
    entries: Mapping[str, dict[str, Entry]],
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
    mark, retain = mark_of(artifact.described), artifact.retain if artifact.retain != "WhenPossible" else None
    variants = {
        (turn, use): Entry(mark, retain, use or None, turn or None, artifact.warm)
        for turn in (False, True)
        for use in (False, True)
    }
    for node in nodes:
        entries[node][artifact.key] = variants[node in turns.turns, everywhere or node in held]
    return {(artifact.key, node) for node in turns.yielding | earlier}


def _introduce(
    world: World,
    placed: Placed,
    entries: Mapping[str, Mapping[str, Entry]],
    met: Mapping[str, dict[str, tuple[str, ...]]],
) -> None:
    """Tell each node that fetches the artifact of others that do or have it."""
    key, candidates, fetching = placed.artifact.key, dict[str, Candidate](), dict[str, tuple[str, ...]]()
    for node in sorted({node for each in placed.nodes.values() for node in each} & world.alive):
        ready = (seen := placed.observed.get(node)) is not None and seen.phase in COPIES
        cache, may_fetch = world.caches.get(node), entries[node][key].turn and not ready
        if may_fetch:
            before = cache.spec.peers if cache is not None else None
            fetching[node] = before.addresses.get(key, ()) if before is not None else ()
        if (ready or may_fetch) and cache is not None and node in world.peering.certificates:
            candidates[node] = Candidate(cache.peer_address, world.nodes.get(node, _NO_LABELS).get(_ZONE, ""), ready)
    for node, addresses in neighbours(key, fetching, candidates).items():
        met[node][key] = addresses


def _peers(world: World, pool: Pool, node: str, addresses: Mapping[str, tuple[str, ...]]) -> Peers | None:
    """Return how a node meets its peers. While nobody can vouch for nodes, what it has stays."""
    if pool.spec.peers.mode == "Off":
        return None
    if not world.peering.authority:
        return cache.spec.peers if (cache := world.caches.get(node)) is not None else None
    return Peers(world.peering.authority, world.peering.certificates.get(node), addresses)


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
    world: World,
    node: str,
    wanted: Collection[str],
    kept: Collection[Name],
    users: Mapping[str, frozenset[str]],
) -> dict[str, Entry]:
    """Entries that stay although nobody is known to want them: of unknown ModelCaches, and what a pod of the node uses."""
    if (cache := world.caches.get(node)) is None:
        return {}
    return {
        key: replace(each, held=used or None)
        for key, each in cache.spec.artifacts.items()
        if key not in wanted and ((used := node in users.get(key, ())) or _may_be_of(world, name_of(key, each.mark), kept))
    }


def _may_be_of(world: World, artifact: str, kept: Collection[Name]) -> bool:
    """Whether an artifact is, or may be, of one of the ModelCaches `kept`. Without its CacheArtifact nobody knows."""
    if (described := world.artifacts.get(artifact)) is None:
        return bool(kept)
    return (described.spec.namespace, described.spec.model) in kept


def _spec(pool: Pool, wanted: Mapping[str, Entry], status_interval: int | None, peers: Peers | None) -> NodeCacheSpec:
    spec = pool.spec
    return NodeCacheSpec(
        pool.metadata.name,
        spec.limit,
        spec.min_free,
        spec.allow_root_filesystem,
        spec.medium,
        bytes_of(spec.memory.budget),
        spec.allowed_sources,
        status_interval,
        wanted,
        peers,
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
