"""What the nodes report of one model, counted. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.controller.specs import Placed
from cluster.controller.world import Cache, Name, Observation, World
from cluster.resources import COPIES

NO_ROOM = frozenset({"Capacity", "CapacityExceeded", "CacheBusy", "OutOfSpace"})
NO_MEMORY = "MemoryExceeded"


@dataclass(frozen=True, slots=True)
class Count:
    """Copies of a model. `failed` has the reason and the message by node, of nodes that live only.

    Of the `ready` copies, `warm` are in memory as the model wants it, and `warming` are being read. `cold` has the reason and
    the message by node of those that nothing makes as warm as that.
    """

    desired: int = 0
    ready: int = 0
    fetching: int = 0
    waiting_for_turn: int = 0
    failed: Mapping[str, tuple[str, str]] | None = None
    warm: int = 0
    warming: int = 0
    cold: Mapping[str, tuple[str, str]] | None = None
    from_origin: int | None = None
    from_peers: int | None = None
    """Bytes that were fetched for the ready copies; None if no node tells them."""

    @property
    def failures(self) -> Mapping[str, tuple[str, str]]:
        return self.failed or {}

    @property
    def chills(self) -> Mapping[str, tuple[str, str]]:
        return self.cold or {}


def commonest(problems: Mapping[str, tuple[str, str]]) -> tuple[str, str, tuple[str, ...]] | None:
    """Return the reason that most nodes report, one message of it, and the nodes, in order; None without problems."""
    if not problems:
        return None
    reasons = Counter(reason for reason, _ in problems.values())
    reason, _ = min(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    nodes = tuple(sorted(node for node, (word, _) in problems.items() if word == reason))
    return reason, problems[nodes[0]][1], nodes


def counted(world: World, placed: Placed, member: Name) -> Count:
    """Count the copies of the ModelCache `member`. A node whose agent does not live is in no count."""
    spec = world.models[member].spec
    placement = spec.placement.pools[0]
    alive = [node for node in placed.nodes[member] if node in world.alive]
    told = {node: _told(placed.observed.get(node), world.caches.get(node)) for node in alive}
    kinds = Counter(each if isinstance(each, str) else "failed" for each in told.values())
    copies = [(node, placed.observed[node]) for node in alive if told[node] == "ready"]
    warm = {node: _warmth(seen, spec.warm) for node, seen in copies} if spec.warm != "None" else {}
    warmths = Counter(each for each in warm.values() if isinstance(each, str))
    return Count(
        placement.replicas if placement.mode == "Count" and placement.replicas is not None else len(alive),
        kinds["ready"],
        kinds["fetching"],
        kinds["waiting"],
        {node: each for node, each in told.items() if not isinstance(each, str)},
        warmths["warm"],
        warmths["warming"],
        {node: each for node, each in warm.items() if not isinstance(each, str)},
        _sum(seen.from_origin for _, seen in copies),
        _sum(seen.from_peers for _, seen in copies),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    told = [each for each in counts if each is not None]
    return sum(told) if told else None


def _told(seen: Observation | None, cache: Cache | None) -> str | tuple[str, str]:
    """Return how far the copy of a node is, or the reason and the message of its failure."""
    if seen is not None and seen.phase in COPIES:
        return "ready"
    if seen is not None and seen.phase in ("Failed", "Waiting", "Damaged", "Evicting", "Evicted"):
        return seen.reason or seen.phase, seen.message
    if cache is not None and cache.problem is not None:
        return cache.problem
    if seen is not None and seen.phase == "Queued" and seen.reason in NO_ROOM:
        return seen.reason, seen.message
    return "fetching" if seen is not None and seen.phase == "Fetching" else "waiting"


def _warmth(seen: Observation, wanted: str) -> str | tuple[str, str]:
    """Return whether a copy is warm or warming, or the reason and the message why it is not."""
    if seen.warm == "Locked" or seen.warm == wanted:
        return "warm"
    return (seen.reason, seen.message) if seen.reason else "warming"
