"""The DaemonSet of a pool's agents, with its service account. Pure.

The agent sees one directory of the node, the pool's root. The installation gives rights to all accounts of its namespace, so
the controller, which makes accounts there, needs no right to give rights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.amounts import bytes_of
from cluster.controller.actions import Action, Make, Remove, rendered
from cluster.controller.world import Pool, World
from cluster.names import AGENT_PORT, PEER_PORT, POOL_LABEL, agents_of, short
from cluster.resources import CachePoolSpec, encoded
from fetcher.quantities import ceil_div

DAEMON_SET = "DaemonSet"
_USER = 65532
"""As in all our pods: nobody else's number, and the group that writes our volumes."""
_RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
"""The agent takes less than 100 MiB, a fetch 256 MiB of buffers at most, and serving peers 128 MiB: 484 MiB. Page cache of what
it writes counts towards the limit too."""
_MiB = 1024 * 1024
_OVERHEAD = 64
"""What the kernel needs beside pages of files, as one byte in so many: `loader hold` refuses what does not fit with it."""
_AS_AGENT = (
    "setpriv",
    f"--reuid={_USER}",
    f"--regid={_USER}",
    "--clear-groups",
    "--inh-caps=-all,+ipc_lock",
    "--ambient-caps=-all,+ipc_lock",
    "--",
)
"""Runs a command as the agents' user, with CAP_IPC_LOCK alone: a container that does not start as root gets no capability."""
_TOLERATIONS = ({"key": "nvidia.com/gpu", "operator": "Exists"},)
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


_LOCKING = {
    "runAsNonRoot": False,
    "runAsUser": 0,
    "runAsGroup": _USER,
    "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK", "SETGID", "SETUID"]},
}
"""Overrides `_RESTRICTED` where `_AS_AGENT` is run."""


@dataclass(frozen=True, slots=True)
class Agents:
    """What all pools' agents have in common, and the Jobs of claims: image, namespace, and a mirror of the Hub.

    `arguments`: of agents, besides their root and that mirror.
    """

    image: str
    namespace: str
    arguments: tuple[str, ...] = ()
    hub_endpoint: str | None = None
    controller: str = "weightlift-controller"
    """The service account of the controller."""


def changes(world: World, agents: Agents) -> Iterable[Action]:
    """Return what makes the DaemonSets those of the pools; that of a pool that cannot be read stays."""
    names = set()
    for name, pool in world.pools.items():
        if name in world.unknown.pools or pool.metadata.deletion_timestamp:
            continue
        documents = documents_of(pool, agents)
        names.add(documents[-1]["metadata"]["name"])
        there = world.daemon_sets.get(documents[-1]["metadata"]["name"])
        made = [Make(each["kind"], each) for each in documents]
        if there is None or (there.rendered != made[-1].rendered and not there.deleting):
            yield from made
    if world.unknown.pools:
        return  # one of them may be its pool's
    for name, owned in world.daemon_sets.items():
        if name not in names and not owned.deleting:
            yield Remove(DAEMON_SET, agents.namespace, name, owned.uid)


def documents_of(pool: Pool, agents: Agents) -> list[dict[str, Any]]:
    """Return the service account and the DaemonSet, in the order in which they are made.

    They are owned by the pool, so Kubernetes collects them after it. The pool carries no finalizer.
    """
    name = agents_of(pool.metadata.name)
    owner = {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "CachePool",
        "name": pool.metadata.name,
        "uid": pool.metadata.uid,
        "controller": True,
    }
    inside = {"name": name, "namespace": agents.namespace, "ownerReferences": [owner]}
    account = rendered({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside})
    labels = {
        "app.kubernetes.io/name": "weightlift",
        "app.kubernetes.io/component": "agent",
        POOL_LABEL: short(pool.metadata.name),
    }
    daemon_set = {
        "apiVersion": "apps/v1",
        "kind": DAEMON_SET,
        "metadata": {**inside, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(pool, name, agents)},
        },
    }
    return [account, rendered(daemon_set)]


def _pod(pool: Pool, account: str, agents: Agents) -> dict[str, Any]:
    spec = pool.spec
    mount, meets = [{"name": "root", "mountPath": spec.root}], spec.peers.mode == "On"
    return {
        "serviceAccountName": account,
        "enableServiceLinks": False,
        # A fetch stops resumably within seconds.
        "terminationGracePeriodSeconds": 30,
        **_affinity(pool),
        **({"priorityClassName": spec.priority_class_name} if spec.priority_class_name else {}),
        "tolerations": list(spec.tolerations or _TOLERATIONS),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # A hostPath belongs to root, and fsGroup does not change that.
        "initContainers": [
            {
                "name": "prepare",
                "image": agents.image,
                "command": ["install"],
                "args": ["--directory", f"--group={_USER}", "--mode=2775", spec.root],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "32Mi"}},
                "securityContext": {
                    **_RESTRICTED,
                    "runAsNonRoot": False,
                    "runAsUser": 0,
                    "runAsGroup": _USER,
                    "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]},
                },
                "volumeMounts": mount,
            }
        ],
        "containers": [
            {
                "name": "agent",
                "image": agents.image,
                "command": [*(_AS_AGENT if spec.memory.allow_locking else ()), "weightlift-agent"],
                "args": [
                    "--root",
                    spec.root,
                    "--metrics-port",
                    str(AGENT_PORT),
                    "--service-account",
                    account,
                    *(("--peer-port", str(PEER_PORT)) if meets else ()),
                    *(("--hub-endpoint", agents.hub_endpoint) if agents.hub_endpoint else ()),
                    *agents.arguments,
                ],
                "env": [
                    _of_the_pod("WEIGHTLIFT_NODE", "spec.nodeName"),
                    _of_the_pod("WEIGHTLIFT_NAMESPACE", "metadata.namespace"),
                    *((_of_the_pod("WEIGHTLIFT_PEER_ADDRESS", "status.podIP"),) if meets else ()),
                ],
                "ports": [
                    {"name": "metrics", "containerPort": AGENT_PORT},
                    *(({"name": "peers", "containerPort": PEER_PORT},) if meets else ()),
                ],
                "livenessProbe": {
                    "httpGet": {"path": "/healthz", "port": "metrics"},
                    "periodSeconds": 20,
                    "failureThreshold": 6,
                },
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 10},
                "resources": resources_of(spec),
                "securityContext": {**_RESTRICTED, **(_LOCKING if spec.memory.allow_locking else {})},
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [*mount, *(({"name": "keys", "mountPath": "/tmp"},) if meets else ())],  # noqa: S108
            }
        ],
        "volumes": [
            {"name": "root", "hostPath": {"path": spec.root, "type": "Directory"}},
            # The node's private key: in memory, and gone with the pod.
            *(({"name": "keys", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},) if meets else ()),
        ],
    }


def resources_of(spec: CachePoolSpec) -> dict[str, Any]:
    """Return the resources of the agent's container: its own, and the memory that belongs to models, in request and limit.

    Own resources without a limit get none: their author wants that.
    """
    resources: dict[str, Any] = dict(spec.resources or _RESOURCES)
    budget = bytes_of(spec.memory.budget)
    if not budget:
        return resources
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    if "memory" in requests or "memory" not in limits:  # Kubernetes requests what is limited only
        requests["memory"] = _raised(requests.get("memory", 0), budget + budget // _OVERHEAD)
    if "memory" in limits:
        limits["memory"] = _raised(limits["memory"], budget + budget // _OVERHEAD)
    parts = {"requests": requests, "limits": limits}
    return {**resources, **{name: amounts for name, amounts in parts.items() if amounts}}


def _raised(amount: object, more: int) -> object:
    """Return a quantity with `more` bytes added. What is no quantity stays, and the API server says so."""
    try:
        return f"{ceil_div(bytes_of(amount) + more, _MiB)}Mi"
    except ValueError:
        return amount


def _affinity(pool: Pool) -> Mapping[str, Any]:
    required = encoded(pool.spec.node_selector.requirements)
    if not required:
        return {}
    terms = {"nodeSelectorTerms": [{"matchExpressions": required}]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


def _of_the_pod(variable: str, path: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
