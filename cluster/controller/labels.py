"""Labels of nodes that have a model, for the affinity of pods: only in pools that ask for them. Pure.

A label says what the agent reports. It goes when the copy or the agent does, and when the pool no longer asks for labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.controller.actions import Action, Change
from cluster.controller.placing import Assignment
from cluster.controller.world import Observation, World
from cluster.resources import COPIES, Entry
from cluster.resources.artifact import content_of, name_of

NODE = "Node"
PREFIX = "ready.weightlift.dev/"
MOST = 50
"""Nodes that are written in one pass: a pass takes a second at least, and a Node is written by its kubelet too."""


def changes(world: World, assignment: Assignment) -> Iterable[Action]:
    """Return the labels that some nodes lack or have too much, of at most `MOST` of them."""
    pools = {node: name for name, nodes in assignment.nodes.items() for node in nodes}
    found: list[Action] = []
    for node, there in sorted(world.nodes.items()):
        if len(found) == MOST:
            break
        if node in world.unknown.nodes or node in world.unknown.caches or world.unknown.pools or world.unknown.artifacts:
            continue
        wanted = _wanted(world, node, pools.get(node))
        patch: dict[str, Any] = dict.fromkeys(sorted(wanted - _present(there)), "true")
        patch |= dict.fromkeys(sorted(_present(there) - wanted))
        if patch:
            found.append(Change(NODE, "", node, {"metadata": {"labels": patch}}))
    return found


def _wanted(world: World, node: str, pool: str | None) -> frozenset[str]:
    cache = world.caches.get(node)
    if pool is None or not world.pools[pool].spec.node_labels or cache is None or node not in world.alive:
        return frozenset()
    return frozenset(
        PREFIX + key
        for key, seen in cache.observed.items()
        if seen.phase in COPIES and key in cache.spec.artifacts and _is_current(world, key, cache.spec.artifacts[key], seen)
    )


def _is_current(world: World, key: str, entry: Entry, seen: Observation) -> bool:
    """Whether a copy was compared with the very revision and listing that its node shall have."""
    described = world.artifacts.get(name_of(key, entry.mark))
    return described is not None and seen.content == content_of(described.spec.revision, described.spec.listing_digest)


def _present(labels: Mapping[str, str]) -> frozenset[str]:
    return frozenset(each for each in labels if each.startswith(PREFIX))
