"""What KServe's manager of local models does next: the rows of its contract, decided from one view of the cluster. Pure.

The plan is made anew from what is there, whichever event came, so nothing depends on having seen a change. What is in order
already is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.kserve.importing import Imports, imports, is_over
from cluster.kserve.local_nodes import NodeWrite, gone, writes
from cluster.kserve.statuses import patch_of, status_in_claim, status_of
from cluster.kserve.volumes import VolumeWrites, belonging_claims, belonging_volumes, volume_writes
from cluster.kserve.world import Cache, LocalNode, World, finalizer_of, id_of, leaving


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order. `finalize` and `release`: caches that get or lose our finalizer.

    `statuses`: a cache and the merge patch of its status.
    """

    finalize: tuple[Cache, ...]
    nodes: tuple[NodeWrite, ...]
    gone: tuple[LocalNode, ...]
    volumes: VolumeWrites
    imports: Imports
    statuses: tuple[tuple[Cache, dict[str, Any]], ...]
    release: tuple[Cache, ...]


def plan(world: World) -> Plan:
    """Return what is to be done so that the cluster is as its caches say."""
    alone = [each for each in world.managed if not leaving(each)]
    shared = [each for each in world.shared if not leaving(each)]
    living, imported = [*alone, *shared], imports(world)
    patches = [(each, patch_of(each.status, status_of(each, world))) for each in alone]
    for each in shared:
        now = status_in_claim(each, imported.states[id_of(each.metadata)], world)
        patches.append((each, patch_of(each.status, now)))
    return Plan(
        finalize=tuple(each for each in living if finalizer_of(each) not in each.metadata.finalizers),
        nodes=writes(world),
        gone=gone(world),
        volumes=volume_writes(world),
        imports=imported,
        statuses=tuple((each, patch) for each, patch in patches if patch is not None),
        release=tuple(each for each in (*world.managed, *world.shared) if leaving(each) and _may_go(each, world)),
    )


def _may_go(cache: Cache, world: World) -> bool:
    """Whether nothing is left of a deleted cache. Its node groups may be gone: they are not asked."""
    if finalizer_of(cache) not in cache.metadata.finalizers:
        return False
    if cache.spec.pvc_ref is not None:
        return is_over(cache, world)
    entries = any(
        model.cache == id_of(cache.metadata) for each in world.local_nodes.values() for model in each.spec.local_models
    )
    stored = (*belonging_claims(world, [cache]), *belonging_volumes(world, [cache]))
    return not entries and all(each.leaving for each in stored)
