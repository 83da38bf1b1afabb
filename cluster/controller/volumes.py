"""The volume and the claim through which pods use a model: what is made, replaced and removed. Pure.

The claim comes first: if somebody else has one of its name, nothing is made. A volume cannot be changed once it is made, so
another artifact needs another one, and that has to wait until no pod uses the claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cluster.controller.actions import Action, Make, Remove, rendered
from cluster.controller.reading import KEY, MODEL, MODEL_NAMESPACE
from cluster.controller.world import Name, Pool, World
from cluster.resources import encoded
from cluster.resources.model import Found

VOLUME, CLAIM = "PersistentVolume", "PersistentVolumeClaim"
_LONGEST = 253


def volume_name(model: Name) -> str:
    """Return the name of a model's volume. The digest at its end keeps `a-b/c` and `a/b-c` apart."""
    digest = hashlib.sha256("/".join(model).encode()).hexdigest()[:8]
    return f"{f'weightlift-{model[0]}-{model[1]}'[: _LONGEST - 9].rstrip('-.')}-{digest}"


def volume(model: Name, found: Found, pool: Pool, claim_uid: str) -> dict[str, Any]:
    """Return the volume of a model, for our very claim: a directory of the node that the pod runs on, never deleted with it."""
    namespace, name = model
    required = encoded(pool.spec.node_selector.requirements)
    # A local volume needs a condition, and every node has this label.
    terms = required or [{"key": "kubernetes.io/hostname", "operator": "Exists"}]
    spec = {
        "capacity": {"storage": str(max(1, found.bytes))},
        "accessModes": ["ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "volumeMode": "Filesystem",
        "local": {"path": f"{pool.spec.root}/{found.key}"},
        "claimRef": {"apiVersion": "v1", "kind": CLAIM, "namespace": namespace, "name": name, "uid": claim_uid},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}},
    }
    document = {"apiVersion": "v1", "kind": VOLUME, "metadata": {"name": volume_name(model), **_marks(model, found)}}
    return rendered({**document, "spec": spec})


def claim(model: Name, found: Found) -> dict[str, Any]:
    """Return the claim of a model, which pods of its namespace mount read-only."""
    namespace, name = model
    spec = {
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "",
        "volumeMode": "Filesystem",
        "volumeName": volume_name(model),
        "resources": {"requests": {"storage": str(max(1, found.bytes))}},
    }
    metadata = {"name": name, "namespace": namespace, **_marks(model, found)}
    return rendered({"apiVersion": "v1", "kind": CLAIM, "metadata": metadata, "spec": spec})


def _marks(model: Name, found: Found) -> dict[str, Any]:
    return {"annotations": {KEY: found.key, MODEL: model[1], MODEL_NAMESPACE: model[0]}}


def changes(world: World, wanted: Mapping[Name, tuple[Found, Pool]], unknown: Collection[Name]) -> Iterable[Action]:
    """Return what makes the volumes and claims those of the `wanted` models; those of `unknown` models stay as they are."""
    mounted = {(namespace, each) for (namespace, _), pod in world.pods.items() for each in pod.claims}
    for model, (found, pool) in wanted.items():
        yield from _of_model(world, model, found, pool, mounted=model in mounted)
    for model, owned in world.claims.items():
        if model not in wanted and not _stays(model, world, unknown, mounted) and not owned.deleting:
            yield Remove(CLAIM, model[0], model[1], owned.uid)
    for name, owned in world.volumes.items():
        stays = owned.model in world.claims or _stays(owned.model, world, unknown, mounted)
        if owned.model not in wanted and not stays and not owned.deleting:
            yield Remove(VOLUME, "", name, owned.uid)


def _stays(model: Name, world: World, unknown: Collection[Name], mounted: Collection[Name]) -> bool:
    return model in unknown or model in mounted or model[0] in world.unknown.pods_of


def _of_model(world: World, model: Name, found: Found, pool: Pool, *, mounted: bool) -> Iterable[Action]:
    name, wanted = volume_name(model), Make(CLAIM, claim(model, found))
    bound, there = world.claims.get(model), world.volumes.get(name)
    if bound is None:
        if there is None:
            yield wanted
        elif not there.deleting:
            yield Remove(VOLUME, "", name, there.uid)  # it was for a claim that is gone, and binds to no other
        return
    volume_wanted = Make(VOLUME, volume(model, found, pool, bound.uid))
    fits = bound.rendered == wanted.rendered and (there is None or there.rendered == volume_wanted.rendered)
    if bound.deleting or (there is not None and there.deleting):
        return
    if not fits:
        if not mounted and model[0] not in world.unknown.pods_of:  # else the pods keep what they have
            yield Remove(CLAIM, model[0], model[1], bound.uid)
    elif there is None:
        yield volume_wanted
