"""Which nodes have an agent that lives: those whose Lease was seen to change lately, by our own clock. Pure but for memory."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.controller.world import Lease, Name
from cluster.names import node_of


class Liveness:
    """Remembers when each Lease was seen to change. `patience` in seconds; times are of one monotonic clock."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: dict[str, tuple[str, float]] = {}

    def look(self, leases: Mapping[Name, Lease], now: float) -> frozenset[str]:
        """Take all Leases by namespace and name; return the nodes that live at `now`.

        A Lease counts as changed when it is seen first: after a restart nobody is dead before the patience has passed.
        """
        nodes = {node: each.renewed for (_, name), each in leases.items() if (node := node_of(name)) is not None}
        before = self._seen
        self._seen = {
            node: seen if (seen := before.get(node)) is not None and seen[0] == text else (text, now)
            for node, text in nodes.items()
        }
        return frozenset(node for node, (_, since) in self._seen.items() if now - since < self._patience)
