"""What the nodes report of one model, counted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.controller.specs import Placed
from cluster.controller.world import Name, World

NO_ROOM = frozenset({"Capacity", "CapacityExceeded", "CacheBusy", "OutOfSpace"})


@dataclass(frozen=True, slots=True)
class Count:
    """Copies of a model. `failed` has the reason and the message by node, of nodes that live only."""

    desired: int = 0
    ready: int = 0
    fetching: int = 0
    waiting_for_turn: int = 0
    failed: Mapping[str, tuple[str, str]] | None = None

    @property
    def failures(self) -> Mapping[str, tuple[str, str]]:
        return self.failed or {}

    @property
    def commonest(self) -> tuple[str, str, int] | None:
        """The reason that most nodes report, one message of it, and how many they are."""
        if not self.failures:
            return None
        reasons = Counter(reason for reason, _ in self.failures.values())
        reason, count = min(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
        return reason, next(text for word, text in self.failures.values() if word == reason), count


def counted(world: World, placed: Placed, member: Name) -> Count:
    """Count the copies of the ModelCache `member`. A node whose agent does not live is in no count."""
    placement = world.models[member].spec.placement.pools[0]
    ready = fetching = waiting = alive = 0
    failed = {}
    for node in placed.nodes[member]:
        if node not in world.alive:
            continue
        alive += 1
        seen, cache = placed.observed.get(node), world.caches.get(node)
        if seen is not None and seen.phase == "Ready":
            ready += 1
        elif seen is not None and seen.phase in ("Failed", "Waiting", "Damaged", "Evicting", "Evicted"):
            failed[node] = (seen.reason or seen.phase, seen.message)
        elif cache is not None and cache.problem is not None:
            failed[node] = cache.problem
        elif seen is not None and seen.phase == "Queued" and seen.reason in NO_ROOM:
            failed[node] = (seen.reason, seen.message)
        elif seen is not None and seen.phase == "Fetching":
            fetching += 1
        else:
            waiting += 1
    desired = placement.replicas if placement.mode == "Count" and placement.replicas is not None else alive
    return Count(desired, ready, fetching, waiting, failed)
