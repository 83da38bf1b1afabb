"""What each LocalModelNode shall say. Pure.

A node keeps the entries of caches and groups that are not known just now: a group that was deleted says nothing about models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.kserve.affinity import selects
from cluster.kserve.kinds import LocalModel, Storage
from cluster.kserve.world import Cache, Id, LocalNode, Node, World, id_of, leaving


@dataclass(frozen=True, slots=True)
class NodeWrite:
    """The models that a LocalModelNode shall have. `before` is None if there is none yet."""

    name: str
    models: tuple[LocalModel, ...]
    before: LocalNode | None


def writes(world: World) -> tuple[NodeWrite, ...]:
    """Return the LocalModelNodes to create or to change. Nothing is written without a difference."""
    changes = []
    for name in sorted(world.nodes.keys() - world.unreadable.nodes):
        before = world.local_nodes.get(name)
        models = _models(world, world.nodes[name], before)
        if models != (before.spec.local_models if before is not None else ()):
            changes.append(NodeWrite(name, models, before))
    return tuple(changes)


def gone(world: World) -> tuple[LocalNode, ...]:
    """Return the LocalModelNodes of nodes that do not exist any more."""
    names = sorted(world.local_nodes.keys() - world.nodes.keys() - world.unreadable.nodes)
    return tuple(world.local_nodes[name] for name in names)


def group_on(cache: Cache, world: World, node: Node) -> str | None:
    """Return the first node group of `cache` that selects `node`; None if none does."""
    known = world.known_groups
    for name in cache.spec.node_groups:
        if name in known and selects(known[name].spec.persistent_volume_spec, node.name, node.labels):
            return name
    return None


def kept_without_group(cache: Cache, world: World, model: LocalModel) -> bool:
    """Whether an entry of a cache that lives stays because its node group is not known."""
    return model.node_group in cache.spec.node_groups and model.node_group not in world.known_groups


def _models(world: World, node: Node, before: LocalNode | None) -> tuple[LocalModel, ...]:
    """Return what the node shall have: what is there in its order, then what is new."""
    there = {each.cache: each for each in (before.spec.local_models if before is not None else ())}
    wanted = _wanted(world, node)
    managed = {id_of(each.metadata): each for each in world.managed if not leaving(each)}
    models: dict[Id, LocalModel] = {}
    for key, model in there.items():
        if key in wanted:
            models[key] = wanted[key]
        elif key in world.unreadable.caches or (key in managed and kept_without_group(managed[key], world, model)):
            models[key] = model
    if node.ready:  # a node that is not ready gets nothing new
        models = {**models, **{key: each for key, each in wanted.items() if key not in models}}
    return tuple(models.values())


def _wanted(world: World, node: Node) -> Mapping[Id, LocalModel]:
    return {
        id_of(cache.metadata): _entry(cache, group)
        for cache in world.managed
        if not leaving(cache) and (group := group_on(cache, world, node)) is not None
    }


def _entry(cache: Cache, group: str) -> LocalModel:
    spec = cache.spec
    return LocalModel(
        spec.source_model_uri,
        cache.metadata.name,
        cache.metadata.namespace or None,
        group,
        spec.service_account_name or None,
        spec.storage if spec.storage != Storage() else None,  # an empty one is not written, and would always differ
    )
