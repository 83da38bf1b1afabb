"""Which nodes belong to which pool, and which of them shall have a model. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cluster.controller.world import Pool
from cluster.resources.model import PoolPlacement


@dataclass(frozen=True, slots=True)
class Assignment:
    """The nodes of each pool, and those that a pool selects but an older one has."""

    nodes: Mapping[str, tuple[str, ...]]
    overlaps: Mapping[str, tuple[str, ...]]


def assigned(pools: Iterable[Pool], nodes: Mapping[str, Mapping[str, str]]) -> Assignment:
    """Give each node to the oldest pool that selects it. A pool that is being deleted has no nodes."""
    ordered = sorted((each for each in pools if not each.metadata.deletion_timestamp), key=lambda pool: pool.age)
    own: dict[str, list[str]] = {each.metadata.name: [] for each in ordered}
    lost: dict[str, list[str]] = {each.metadata.name: [] for each in ordered}
    for node in sorted(nodes):
        first, *others = [each.metadata.name for each in ordered if each.spec.node_selector.matches(nodes[node])] or [""]
        if first:
            own[first].append(node)
        for each in others:
            lost[each].append(node)
    return Assignment({name: tuple(each) for name, each in own.items()}, {name: tuple(each) for name, each in lost.items()})


def chosen(
    placement: PoolPlacement,
    key: str,
    nodes: Collection[str],
    *,
    alive: Container[str],
    ready: Container[str],
    wanted: Container[str],
) -> tuple[str, ...]:
    """Return the nodes of a pool that shall have the artifact `key`.

    A count keeps copies that are ready, then nodes that were chosen before, as long as they live. The rest is by rendezvous
    hash, so that models spread, and a new node takes few of them over.
    """
    if placement.mode == "AllNodes" or placement.replicas is None or placement.replicas >= len(nodes):
        return tuple(nodes)

    def rank(node: str) -> tuple[bool, bool, bool, bytes]:
        return node not in alive, node not in ready, node not in wanted, score(key, node)

    return tuple(sorted(sorted(nodes, key=rank)[: placement.replicas]))


@lru_cache(maxsize=512 * 1024)
def score(key: str, node: str) -> bytes:
    """A number by which nodes are ordered for `key`: the same everywhere, and as if by chance."""
    return hashlib.blake2b(f"{key}/{node}".encode(), digest_size=8).digest()
