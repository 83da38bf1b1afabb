"""What a CachePool says of itself. Pure."""

from __future__ import annotations

from collections.abc import Collection

from cluster.controller.world import Pool, World
from cluster.names import agents_of
from cluster.resources import CachePoolStatus, Condition
from cluster.resources.conditions import Status, merged

_SHOWN = 10
"""Nodes that a message names."""


def status_of_pool(
    world: World, pool: Pool, nodes: Collection[str], overlaps: Collection[str], *, moment: str
) -> CachePoolStatus:
    """Return the status of a pool that has `nodes`; `overlaps` are nodes that it selects and an older pool has."""
    alive = [node for node in nodes if node in world.alive]
    problems = {node: cache.problem for node in alive if (cache := world.caches.get(node)) is not None and cache.problem}
    strange = [node for node in nodes if (cache := world.caches.get(node)) is not None and not cache.ours]
    used = sum(cache.used for node in nodes if (cache := world.caches.get(node)) is not None)
    told: list[tuple[str, Status, str, str]] = [_ready(world, pool, nodes, alive, problems, strange)]
    sentence = "no other pool has nodes that this one selects"
    if overlaps:
        sentence = f"an older CachePool has {_listed(overlaps)}; change one of the two nodeSelectors"
    told.append(("Overlap", "True" if overlaps else "False", "Overlap" if overlaps else "NoOverlap", sentence))
    if pool.spec.peers.mode == "On":
        told.append(_peers(world, alive))
    conditions = (Condition(*each, pool.metadata.generation) for each in told)
    return CachePoolStatus(
        len(nodes),
        len(alive) - len(problems),
        used,
        merged(pool.status.conditions, conditions, moment=moment),
    )


def _peers(world: World, alive: Collection[str]) -> tuple[str, Status, str, str]:
    """Told only of pools where peers are on."""
    if not world.peering.authority:
        return "Peers", "False", *(world.peering.problem or ("NoAuthority", "nobody vouches for nodes yet"))
    known = sum(node in world.peering.certificates for node in alive)
    sentence = f"{known} of {len(alive)} nodes have a certificate"
    return ("Peers", "True", "Certified", sentence) if known >= len(alive) else ("Peers", "False", "NotCertified", sentence)


def _ready(
    world: World,
    pool: Pool,
    nodes: Collection[str],
    alive: Collection[str],
    problems: dict[str, tuple[str, str]],
    strange: Collection[str],
) -> tuple[str, Status, str, str]:
    name = agents_of(pool.metadata.name)
    refusal = next((text for (_, _, what), text in world.refusals.items() if what == name), None)
    if refusal is not None:
        return "Ready", "False", "DaemonSetRefused", refusal
    if strange:
        return "Ready", "False", "NotOurs", f"somebody else made the NodeCache of {_listed(strange)}; delete it"
    if not nodes:
        return "Ready", "False", "NoNodes", "the nodeSelector selects no node that no older pool has"
    if problems:
        node, (reason, message) = min(problems.items())
        return "Ready", "False", reason, f"{len(problems)} of {len(nodes)} nodes, such as {node}: {message}"
    if len(alive) < len(nodes):
        missing = [node for node in nodes if node not in world.alive]
        return (
            "Ready",
            "False",
            "AgentsMissing",
            f"no agent reports on {_listed(missing)}; look at the pods of DaemonSet {name}",
        )
    return "Ready", "True", "Ready", "the agents of all nodes report"


def _listed(nodes: Collection[str]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(sorted(nodes)[:_SHOWN]) + more
