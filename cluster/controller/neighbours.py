"""Which nodes a node that fetches an artifact is told of. Pure.

Nodes lie on a ring, in an order as if by chance that differs from artifact to artifact, and each is told of those that follow
it: so each is asked by about as many as it asks. Those of its zone come first, then those that are complete.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from cluster.controller.placing import score
from cluster.resources.node import MOST_PEERS

ENOUGH = 4
"""Peers with which a node goes on without being told of others: each change is a write of its NodeCache."""
_Ring = list[tuple[bytes, str]]
_EMPTY: _Ring = []


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that serves its peers at `address`. `zone`: empty if it is not known. `ready`: it has all of the artifact."""

    address: str
    zone: str = ""
    ready: bool = False


def neighbours(
    key: str, fetching: Mapping[str, Sequence[str]], candidates: Mapping[str, Candidate]
) -> Mapping[str, tuple[str, ...]]:
    """Return the addresses that each node of `fetching` is told for the artifact `key`; who has none is left out.

    `fetching` has the addresses that it was told before. Those that are still good stay; as long as they are enough, none is
    added.
    """
    rings: dict[tuple[str, bool], _Ring] = {}
    for node in sorted(candidates, key=lambda each: score(key, each)):
        each = candidates[node]
        for zone in {each.zone, ""}:
            rings.setdefault((zone, each.ready), []).append((score(key, node), node))
    good = {each.address for each in candidates.values()}
    told = {node: _told(key, node, before, rings, candidates, good) for node, before in fetching.items()}
    return {node: addresses for node, addresses in told.items() if addresses}


def _told(
    key: str,
    node: str,
    before: Sequence[str],
    rings: Mapping[tuple[str, bool], _Ring],
    candidates: Mapping[str, Candidate],
    good: set[str],
) -> tuple[str, ...]:
    own = candidates.get(node)
    zones = dict.fromkeys((own.zone if own is not None else "", ""))
    place = score(key, node)
    following = chain.from_iterable(
        _after(rings.get((zone, ready), _EMPTY), place) for zone in zones for ready in (True, False)
    )
    found = (candidates[each].address for each in following if each != node)
    kept = [each for each in before if each in good]
    if len(kept) >= ENOUGH:
        return tuple(kept)
    return tuple(islice(dict.fromkeys(chain(kept, found)), MOST_PEERS))


def _after(ring: _Ring, place: bytes) -> Iterator[str]:
    """The nodes that follow `place`, once around."""
    start = bisect_right(ring, place, key=lambda each: each[0])
    return (ring[(start + step) % len(ring)][1] for step in range(len(ring)))
