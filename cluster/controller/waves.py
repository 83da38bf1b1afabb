"""Which nodes may fetch a model now: at most so many at a time, so that its source sees a wave and no flood. Pure.

A turn is held by a node until its copy is Ready. A failed fetch keeps its turn too: what fails everywhere (a revoked token, a
model that is gone) is then asked for by a few nodes only. If a copy is Ready somewhere, a failed node gives its turn away once,
so a few broken nodes do not stop the others.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass

from cluster.controller.placing import score
from cluster.controller.world import Observation
from cluster.resources import COPIES

LANES = 8
"""Models with one lane take the nodes in one order, so a node gets turns for several models by one write of its NodeCache.
Models of different lanes begin at different nodes, which spreads the load."""

_OF_THE_NODE = frozenset(
    {
        "CacheBusy", "CannotWrite", "Capacity", "CapacityExceeded", "IOError", "MediumMismatch", "NotAMountPoint", "OutOfSpace",
        "OverLimit", "RootMissing",
    }
)  # fmt: skip
"""Reasons for which a node does not ask the source at all: its turn is nobody's."""
_PARKED = ("Evicting", "Evicted")
_FAILED = ("Failed", "Waiting")


@dataclass(frozen=True, slots=True)
class Wave:
    """The nodes with a turn, and those that gave theirs away."""

    turns: frozenset[str]
    yielding: frozenset[str]


def wave(
    key: str,
    nodes: Collection[str],
    observed: Mapping[str, Observation],
    *,
    limit: int,
    alive: Container[str],
    held: Container[str],
    before: Container[str],
    yielded: Collection[str],
) -> Wave:
    """Return who has a turn for the artifact `key` on `nodes`.

    `observed` is what each node reports of it, `before` has the nodes with a turn now, `yielded` those that gave one away
    before, `held` those on which a pod waits for it or uses it. Of nodes that may ask the source, at most `limit` have a turn.
    """
    settled = {node for node in nodes if node in observed and is_settled(observed[node])}
    asking = [node for node in nodes if node not in settled and node in alive]
    failing = {node for node in asking if node in observed and observed[node].phase in _FAILED}
    proven = any(each.phase in COPIES for each in observed.values())
    give_up = {node for node in failing if proven and node not in yielded} if len(asking) > limit else set()
    lane = f"lane {int(key[:4], 16) % LANES}"

    def order(node: str) -> tuple[bool, bool, bool, bool, bytes]:
        running = node in before and node not in give_up
        return node in give_up, not running, node in yielded, node not in held, score(lane, node)

    turns = frozenset(sorted(asking, key=order)[:limit])
    return Wave(turns | settled, frozenset(give_up) - turns)


def is_settled(observation: Observation) -> bool:
    """Whether the node asks the source for nothing: it has its copy, or no room for it."""
    return (
        observation.phase in COPIES
        or observation.phase in _PARKED
        or (observation.phase in ("Queued", *_FAILED) and observation.reason in _OF_THE_NODE)
    )
