"""How long a change of what a node shall have may wait: what is wanted never does, turns and peers in a large cluster. Pure."""

from __future__ import annotations

from dataclasses import replace

from cluster.controller.waves import is_settled
from cluster.controller.world import Cache
from cluster.resources import NodeCacheSpec

_WITH_TURNS = 3
"""Intervals for which a node of a large cluster that may fetch something waits for more turns: each write of its NodeCache is a
whole object to etcd, and the node fetches one model after the other."""


def seconds_apart(there: Cache, spec: NodeCacheSpec) -> float | None:
    """Return how far from its last write a NodeCache is written with `spec`; None: there is nothing worth a write."""
    if there.spec == spec or _only_forgets(there.spec, spec):
        return None
    if spec.status_interval is None or not _is_wanted_the_same(there.spec, spec):
        return 0.0
    return float(spec.status_interval * (_WITH_TURNS if _has_turns(there) else 1))


def _has_turns(cache: Cache) -> bool:
    """Whether the node may fetch something that it does not have yet."""
    return any(
        each.turn and ((seen := cache.observed.get(key)) is None or not is_settled(seen))
        for key, each in cache.spec.artifacts.items()
    )


def _only_forgets(before: NodeCacheSpec, now: NodeCacheSpec) -> bool:
    """Whether nothing but peers of former fetches goes: that is written with the next change."""
    if before.peers is None or now.peers is None or replace(before, peers=now.peers) != now:
        return False
    told = before.peers.addresses
    return _same_but_addresses(before, now) and all(told.get(key) == each for key, each in now.peers.addresses.items())


def _same_but_addresses(before: NodeCacheSpec, now: NodeCacheSpec) -> bool:
    if before.peers is None or now.peers is None:
        return before.peers is now.peers
    return replace(before.peers, addresses={}) == replace(now.peers, addresses={})


def _is_wanted_the_same(before: NodeCacheSpec, now: NodeCacheSpec) -> bool:
    """Whether nothing but turns and the peers of fetches differs."""
    plain = [replace(each, artifacts={}, peers=None) for each in (before, now)]
    if plain[0] != plain[1] or before.artifacts.keys() != now.artifacts.keys() or not _same_but_addresses(before, now):
        return False
    pairs = ((before.artifacts[key], each) for key, each in now.artifacts.items())
    return all((one.mark, one.retain, one.held) == (other.mark, other.retain, other.held) for one, other in pairs)
