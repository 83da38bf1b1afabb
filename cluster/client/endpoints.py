"""Where the objects of a kind are at the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cluster.resources.kinds import Kind


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A kind as the API server's addresses name it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of an object, or of a collection without `name`.

        Raises ValueError if a namespace is missing, or if a name would lead to another path.
        """
        if {name, namespace} & {".", ".."}:
            raise ValueError(f"{namespace}/{name} is no name of a {self.kind}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name} is in a namespace")
        base = "/api" if "/" not in self.api_version else "/apis"
        place = ("namespaces", namespace) if self.namespaced and namespace else ()
        parts = (self.api_version, *place, self.plural, *((name,) if name else ()), *((subresource,) if subresource else ()))
        return "/".join((base, *(quote(part, safe="/" if part is self.api_version else "") for part in parts)))

    def named(self, name: str = "", namespace: str = "") -> str:
        """The object, or all of them, for messages."""
        return f"{self.plural} {f'{namespace}/' if namespace else ''}{name}".rstrip("/ ")


def endpoint_of(kind: Kind[Any, Any]) -> Endpoint:
    return Endpoint(kind.api_version, kind.name, kind.plural, kind.namespaced)


NODES = Endpoint("v1", "Node", "nodes", namespaced=False)
NAMESPACES = Endpoint("v1", "Namespace", "namespaces", namespaced=False)
PODS = Endpoint("v1", "Pod", "pods", namespaced=True)
SECRETS = Endpoint("v1", "Secret", "secrets", namespaced=True)
EVENTS = Endpoint("v1", "Event", "events", namespaced=True)
SERVICE_ACCOUNTS = Endpoint("v1", "ServiceAccount", "serviceaccounts", namespaced=True)
CONFIG_MAPS = Endpoint("v1", "ConfigMap", "configmaps", namespaced=True)
VOLUMES = Endpoint("v1", "PersistentVolume", "persistentvolumes", namespaced=False)
CLAIMS = Endpoint("v1", "PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True)
DAEMON_SETS = Endpoint("apps/v1", "DaemonSet", "daemonsets", namespaced=True)
JOBS = Endpoint("batch/v1", "Job", "jobs", namespaced=True)
CRDS = Endpoint("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
LEASES = Endpoint("coordination.k8s.io/v1", "Lease", "leases", namespaced=True)
