"""Leases of agents whose nodes are gone: nobody else removes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.controller.actions import Action, Remove
from cluster.controller.world import World
from cluster.names import node_of


def removals(world: World) -> Iterable[Action]:
    """Return the Leases to remove. One that is still renewed stays: its agent may live longer than its Node."""
    there = world.nodes.keys() | world.unknown.nodes | world.alive
    return [
        Remove("Lease", namespace, name, lease.uid)
        for (namespace, name), lease in sorted(world.leases.items())
        if (node := node_of(name)) is not None and node not in there
    ]
