"""The steps of the control plane and the kubelet that Debian's `podman kube play` lacks.

Podman plays Pods with ConfigMaps, init containers, security contexts and limits. It does not support Jobs, DaemonSets, claims,
the group of a volume, memory volumes, Secrets, or `$(NAME)` in arguments. Other parts of a manifest stay unchanged.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.k8s.manifests.rendering import Resource, containers, pod_spec, template_of

_MEMORY = "/dev/shm"  # noqa: S108 - the memory filesystem of a node

PODS = "/var/lib/kubelet/pods"
"""The kubelet's directory of pods, with one directory for each."""

_STRANGER = 1000

_KEEP_INIT_CONTAINERS = {"io.podman.annotations.init.container.type": "always"}
"""By default podman removes successful init containers. Tests read their logs and exit codes."""

Objects = Mapping[tuple[str, str], Resource]
"""ConfigMaps and Secrets, by kind and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """The directories of volumes. Claims and paths of the node outlive pods.

    `memory` is a directory on a tmpfs. `honours_group`: whether the claims' driver gives their root to the pod's fsGroup. If
    not, another user owns the root.
    """

    root: Path
    memory: Path
    honours_group: bool = True

    def claim(self, name: str) -> Path:
        directory = self.root / "claims" / name
        if not directory.exists() and not self.honours_group:
            os.chown(_made(directory), _STRANGER, _STRANGER)
            directory.chmod(0o700)
        return _made(directory)

    def path_of_node(self, path: str) -> Path:
        """Return the directory for a path of the node. Paths in /dev/shm are in `memory`."""
        root = self.memory if Path(path).is_relative_to(_MEMORY) else self.root
        return _made(root / "node" / path.strip("/").replace("/", "-"))

    def of_pod(self, pod: str, volume: str, *, in_memory: bool = False) -> Path:
        return _made((self.memory if in_memory else self.root) / "pods" / pod / volume)


def pod_of(workload: Resource, *, name: str, objects: Objects, disks: Disks) -> Resource:
    """Return the Pod of a workload, in a form that podman can play on this machine's network.

    Raises KeyError for a missing ConfigMap or Secret.
    """
    template = template_of(workload)
    spec = deepcopy(pod_spec(workload))
    _made(disks.path_of_node(PODS) / uid_of(name))
    spec["volumes"] = [_mounted(volume, spec, pod=name, objects=objects, disks=disks) for volume in spec["volumes"]]
    if (group := spec.get("securityContext", {}).get("fsGroup")) is not None:
        spec["securityContext"]["supplementalGroups"] = [group]
    for container in containers(spec):
        container["env"] = [each for variable in container.get("env", []) for each in _variable(variable, objects, name)]
        known = _environment(container, objects)
        container.pop("ports", None)  # podman maps no ports on the machine's network
        container |= {
            key: [_expanded(word, known) for word in container[key]] for key in ("command", "args") if key in container
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(template["metadata"]["labels"]), "annotations": _KEEP_INIT_CONTAINERS},
        # With another policy, podman also restarts successful init containers.
        "spec": {**spec, "hostNetwork": True, "restartPolicy": "Never"},
    }


def _mounted(volume: Resource, spec: Resource, *, pod: str, objects: Objects, disks: Disks) -> Resource:
    """Return a volume on a directory of this machine, prepared as the kubelet does."""
    name = volume["name"]
    directory, grouped = _directory(volume, pod=pod, objects=objects, disks=disks)
    group = spec.get("securityContext", {}).get("fsGroup")
    if grouped and group is not None:
        _give_to_group(directory, group)
    if volume.get("persistentVolumeClaim", {}).get("readOnly"):
        for mount in (mount for container in containers(spec) for mount in container["volumeMounts"]):
            mount["readOnly"] = mount["name"] == name or mount.get("readOnly", False)
    return {"name": name, "hostPath": {"path": str(directory), "type": "Directory"}}


def _directory(volume: Resource, *, pod: str, objects: Objects, disks: Disks) -> tuple[Path, bool]:
    """Return the directory of a volume, and whether the pod's fsGroup owns it."""
    match volume:
        case {"persistentVolumeClaim": {"claimName": claim}}:
            return disks.claim(claim), disks.honours_group
        case {"hostPath": {"path": path}}:
            return disks.path_of_node(path), False
        case {"emptyDir": wanted}:
            directory = disks.of_pod(pod, volume["name"], in_memory=wanted.get("medium") == "Memory")
            directory.chmod(0o777)
            return directory, True
        case {"configMap": {"name": name}}:
            return _written(disks.of_pod(pod, volume["name"]), objects["ConfigMap", name]["data"], 0o644), True
        case {"secret": {"secretName": name, "defaultMode": mode}}:
            files = objects["Secret", name]["stringData"]
            if (items := volume["secret"].get("items")) is not None:
                files = {item["path"]: files[item["key"]] for item in items}
            return _written(disks.of_pod(pod, volume["name"]), files, mode), True
        case {"projected": {"sources": sources, "defaultMode": mode}}:
            files = {name: text for source in sources for name, text in _projected(source, objects).items()}
            return _written(disks.of_pod(pod, volume["name"]), files, mode), True
    raise AssertionError(f"unsupported volume: {volume}")


def _projected(source: Resource, objects: Objects) -> dict[str, str]:
    """Return the files of one source of a projected volume."""
    match source:
        case {"serviceAccountToken": token}:
            return {token["path"]: f"token-for-{token.get('audience', 'the-api-server')}"}
        case {"configMap": {"name": name, "items": items}}:
            return {item["path"]: objects["ConfigMap", name]["data"][item["key"]] for item in items}
    raise AssertionError(f"unsupported source: {source}")


def uid_of(pod: str) -> str:
    """Return the UID of the pod with this name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, pod))


def _variable(variable: Resource, objects: Objects, pod: str) -> Iterator[dict[str, Any]]:
    """Yield the variable, with the value of its Secret or the pod's UID. Yield nothing for a missing optional Secret."""
    if variable.get("valueFrom") == {"fieldRef": {"fieldPath": "metadata.uid"}}:
        yield {"name": variable["name"], "value": uid_of(pod)}
        return
    if variable.get("valueFrom") == {"fieldRef": {"fieldPath": "metadata.namespace"}}:
        yield {"name": variable["name"], "value": "default"}
        return
    reference = variable.get("valueFrom", {}).get("secretKeyRef")
    if reference is None:
        yield variable
    elif ("Secret", reference["name"]) in objects or not reference.get("optional"):
        yield {"name": variable["name"], "value": objects["Secret", reference["name"]]["stringData"][reference["key"]]}


def _environment(container: Resource, objects: Objects) -> dict[str, str]:
    """Return the values of `$(NAME)` in the container's arguments."""
    known: dict[str, str] = {}
    for source in container.get("envFrom", []):
        known |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    for variable in container["env"]:
        source = variable.get("valueFrom", {}).get("configMapKeyRef")
        known[variable["name"]] = objects["ConfigMap", source["name"]]["data"][source["key"]] if source else variable["value"]
    return known


def _expanded(word: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` in `word`. Unknown names stay, so that the command fails on them."""
    return re.sub(r"\$\(([A-Za-z_]+)\)", lambda match: known.get(match[1], match[0]), word)


def _give_to_group(directory: Path, group: int) -> None:
    """Give the root and its files to the group. OnRootMismatch skips deeper files."""
    for path in (directory, *(each for each in directory.iterdir() if each.is_file())):
        os.chown(path, -1, group)
    directory.chmod(directory.stat().st_mode | 0o2770)


def _written(directory: Path, data: Mapping[str, str], mode: int) -> Path:
    for name, text in data.items():
        path = directory / name
        path.write_text(text)
        path.chmod(mode)
    return directory


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
