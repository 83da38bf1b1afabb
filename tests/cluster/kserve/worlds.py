"""Clusters with local models, as values: what a test does not name is as a plain cluster has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.kserve.kinds import (
    LOCAL_MODEL_CACHE,
    LOCAL_MODEL_NAMESPACE_CACHE,
    LOCAL_MODEL_NODE,
    LOCAL_MODEL_NODE_GROUP,
    ModelStatus,
)
from cluster.kserve.names import MODEL_LABEL, NAMESPACE_LABEL
from cluster.kserve.world import (
    Cache,
    Group,
    Import,
    Importing,
    LocalNode,
    Node,
    Options,
    Service,
    Stored,
    Unreadable,
    World,
    id_of,
)

URI = "hf://org/m"
JOBS = "kserve-localmodel-jobs"


def cache(name: str = "m", namespace: str = "", *, groups: Iterable[str] = ("gpu",), **changes: Any) -> Cache:
    """A cache of `URI`. `changes`: `uri`, `finalizers`, `status`, `spec`, `deleting`, `age`."""
    kind = LOCAL_MODEL_NAMESPACE_CACHE if namespace else LOCAL_MODEL_CACHE
    finalizer = "localmodelnamespacecache.kserve.io/finalizer" if namespace else "localmodel.kserve.io/finalizer"
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{namespace}-{name}",
        "creationTimestamp": f"2026-01-01T00:00:0{changes.get('age', 0)}Z",
        "finalizers": changes.get("finalizers", [finalizer]),
        "deletionTimestamp": "2026-01-02T00:00:00Z" if changes.get("deleting") else None,
    }
    spec = {
        "sourceModelUri": changes.get("uri", URI),
        "modelSize": "1Gi",
        "nodeGroups": list(groups),
        **changes.get("spec", {}),
    }
    return kind.read({"metadata": metadata, "spec": spec, "status": changes.get("status", {})})


def group(name: str = "gpu", *, label: str | None = None, path: str = "/mnt/models") -> Group:
    """A node group whose nodes have the label `group` with its name."""
    expression = {"key": "group", "operator": "In", "values": [label or name]}
    volume = {
        "local": {"path": path},
        "capacity": {"storage": "1Ti"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local-storage",
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local-storage",
        "resources": {"requests": {"storage": "1Ti"}},
    }
    spec = {"storageLimit": "1Ti", "persistentVolumeSpec": volume, "persistentVolumeClaimSpec": claim}
    return LOCAL_MODEL_NODE_GROUP.read({"metadata": {"name": name}, "spec": spec})


def node(name: str = "n1", *, ready: bool = True, label: str = "gpu") -> Node:
    return Node(name, ready, {"group": label})


def local_node(name: str, *models: Mapping[str, Any], **statuses: ModelStatus) -> LocalNode:
    """A LocalModelNode. The names of `statuses` have `__` for a slash."""
    status = {key.replace("__", "/"): value for key, value in statuses.items()}
    document = {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {"localModels": list(models)}}
    return LOCAL_MODEL_NODE.read({**document, "status": {"modelStatus": status}})


def entry(
    name: str = "m", *, group: str | None = "gpu", namespace: str | None = None, uri: str = URI, **more: Any
) -> dict[str, Any]:
    """An entry of a LocalModelNode, as JSON."""
    wanted = {"modelName": name, "sourceModelUri": uri, "nodeGroup": group, "namespace": namespace, **more}
    return {key: value for key, value in wanted.items() if value is not None}


def service(name: str = "s", namespace: str = "team", *, uses: str = "m", of: str = "", **annotations: str) -> Service:
    """A service that is labelled for the cache `uses` of the namespace `of`. `nodegroup` is the one it asks for."""
    labels = {MODEL_LABEL: uses, **({NAMESPACE_LABEL: of} if of else {})}
    return Service(namespace, name, labels, {f"serving.kserve.io/{key}": value for key, value in annotations.items()})


def world(*things: Any, services: Iterable[Service] = (), stored: Iterable[Stored] = (), **more: Any) -> World:
    """A cluster with these caches, groups, nodes and LocalModelNodes. Claims among `stored` are those with a namespace."""
    stored = tuple(stored)
    return World(
        options=more.get("options", Options(JOBS)),
        caches={id_of(each.metadata): each for each in things if _is(each, "LocalModelCacheSpec")},
        groups={each.metadata.name: each for each in things if _is(each, "LocalModelNodeGroupSpec")},
        nodes={each.name: each for each in things if isinstance(each, Node)},
        local_nodes={each.metadata.name: each for each in things if _is(each, "LocalModelNodeSpec")},
        services=tuple(services),
        volumes={each.name: each for each in stored if not each.namespace},
        claims={each.id: each for each in stored if each.namespace},
        unreadable=more.get("unreadable", Unreadable()),
        imports={(each.namespace, each.name): each for each in things if isinstance(each, Import)},
        importing=more.get("importing", Importing("image", ("hf://",))),
        moment="2026-01-03T00:00:00Z",
    )


def _is(thing: Any, spec: str) -> bool:
    return type(getattr(thing, "spec", None)).__name__ == spec
