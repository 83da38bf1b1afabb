"""The status of a cache: how far each of its nodes is, and who uses it. Pure.

Only nodes that the cache's groups select now are in it: a node that is gone leaves, and the total with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cluster.kserve.importing import State, copies_and_conditions
from cluster.kserve.kinds import CopyCounts, LocalModel, LocalModelCacheStatus, ModelStatus, NodeStatus, User
from cluster.kserve.local_nodes import group_on, kept_without_group
from cluster.kserve.users import users_of
from cluster.kserve.world import Cache, Node, World, id_of
from cluster.resources import encoded

_OF_MODEL: Mapping[ModelStatus, NodeStatus] = {
    "": "NodeDownloadPending",
    "ModelDownloadPending": "NodeDownloadPending",
    "ModelDownloading": "NodeDownloading",
    "ModelDownloaded": "NodeDownloaded",
    "ModelDownloadError": "NodeDownloadError",
}


def status_in_claim(cache: Cache, state: State, world: World) -> LocalModelCacheStatus:
    """Return what the status of a `cache` in a shared claim shall be. No node has anything of it."""
    copies, conditions = copies_and_conditions(cache, state, world.moment)
    return LocalModelCacheStatus({}, copies, *_users(cache, world), conditions)


def status_of(cache: Cache, world: World) -> LocalModelCacheStatus:
    """Return what the status of `cache` shall be."""
    found = {name: _on_node(cache, world, node) for name, node in sorted(world.nodes.items())}
    nodes = {name: status for name, status in found.items() if status is not None}
    counted = Counter(nodes.values())
    copies = CopyCounts(available=counted["NodeDownloaded"], total=len(nodes), failed=counted["NodeDownloadError"])
    return LocalModelCacheStatus(nodes, copies, *_users(cache, world), cache.status.conditions)


def _users(cache: Cache, world: World) -> tuple[tuple[User, ...], tuple[User, ...]]:
    """The services that use a cache, those of language models apart."""
    users = users_of(cache, world.services)
    first, second = (tuple(User(each.namespace, each.name) for each in users if each.kind == kind) for kind in _KINDS)
    return first, second


_KINDS = ("InferenceService", "LLMInferenceService")


def patch_of(before: LocalModelCacheStatus, now: LocalModelCacheStatus) -> dict[str, Any] | None:
    """Return the merge patch that turns one status into the other; None if they are equal, so that nothing is written."""
    old, new = encoded(before), encoded(now)
    if old == new:
        return None
    lost = dict.fromkeys(before.node_status.keys() - now.node_status.keys())
    absent = dict.fromkeys(old.keys() - new.keys())
    return {"status": {**absent, **new, **({"nodeStatus": {**new.get("nodeStatus", {}), **lost}} if lost else {})}}


def _on_node(cache: Cache, world: World, node: Node) -> NodeStatus | None:
    """Return how far a node is; None for a node that is none of the cache's."""
    before = cache.status.node_status.get(node.name, "")
    if node.name in world.unreadable.nodes:
        return before or None
    if group_on(cache, world, node) is None and not _has_without_group(cache, world, node):
        return None
    if not node.ready:
        return before or "NodeNotReady"
    local = world.local_nodes.get(node.name)
    reported = local.status.model_status.get(_status_key(cache), "") if local is not None else ""
    return _OF_MODEL.get(reported, "NodeDownloadPending")


def _has_without_group(cache: Cache, world: World, node: Node) -> bool:
    local = world.local_nodes.get(node.name)
    models = local.spec.local_models if local is not None else ()
    return any(each.cache == id_of(cache.metadata) and kept_without_group(cache, world, each) for each in models)


def _status_key(cache: Cache) -> str:
    return LocalModel("", cache.metadata.name, cache.metadata.namespace or None).status_key
