"""What the control plane and the kubelet make of a workload before the container runtime sees it, as far as Debian's
`podman kube play` leaves it out.

It plays Pods with ConfigMaps, init containers, security contexts and limits. It knows neither Jobs nor DaemonSets, claims nor
the group of a volume, volumes of memory, Secrets, nor `$(NAME)` in arguments. Nothing else of a manifest is touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.k8s.manifests.rendering import Resource, containers, pod_spec

_MEMORY = "/dev/shm"  # noqa: S108 - where a node has its memory as a filesystem

_STRANGER = 1000

_KEEP_INIT_CONTAINERS = {"io.podman.annotations.init.container.type": "always"}
"""Podman removes those that ended well; tests ask them."""

Objects = Mapping[tuple[str, str], Resource]
"""ConfigMaps and Secrets, by kind and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """Where volumes lie. Claims and paths of the node outlive pods.

    `memory` is a directory of a tmpfs. `honours_group`: whether the claims' driver gives their root to the pod's fsGroup; one
    that does not has a root that is somebody else's.
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
        """What lies in /dev/shm there lies in memory here."""
        root = self.memory if Path(path).is_relative_to(_MEMORY) else self.root
        return _made(root / "node" / path.strip("/").replace("/", "-"))

    def of_pod(self, pod: str, volume: str, *, in_memory: bool = False) -> Path:
        return _made((self.memory if in_memory else self.root) / "pods" / pod / volume)


def pod_of(workload: Resource, *, name: str, objects: Objects, disks: Disks) -> Resource:
    """The Pod that the workload's controller would make, as podman can play it on this machine's network.

    Raises KeyError for a ConfigMap or a Secret that is not there.
    """
    template = workload["spec"]["template"]
    spec = deepcopy(pod_spec(workload))
    spec["volumes"] = [_mounted(volume, spec, pod=name, objects=objects, disks=disks) for volume in spec["volumes"]]
    if (group := spec.get("securityContext", {}).get("fsGroup")) is not None:
        spec["securityContext"]["supplementalGroups"] = [group]
    for container in containers(spec):
        container["env"] = [each for variable in container.get("env", []) for each in _variable(variable, objects)]
        known = _environment(container, objects)
        container.pop("ports", None)  # on the machine's network podman maps none
        container |= {
            key: [_expanded(word, known) for word in container[key]] for key in ("command", "args") if key in container
        }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(template["metadata"]["labels"]), "annotations": _KEEP_INIT_CONTAINERS},
        # Podman would restart init containers that ended well, too.
        "spec": {**spec, "hostNetwork": True, "restartPolicy": "Never"},
    }


def _mounted(volume: Resource, spec: Resource, *, pod: str, objects: Objects, disks: Disks) -> Resource:
    """A directory of this machine, prepared as the kubelet prepares volumes."""
    name = volume["name"]
    directory, grouped = _directory(volume, pod=pod, objects=objects, disks=disks)
    if grouped:
        _give_to_group(directory, spec["securityContext"]["fsGroup"])
    if volume.get("persistentVolumeClaim", {}).get("readOnly"):
        for mount in (mount for container in containers(spec) for mount in container["volumeMounts"]):
            mount["readOnly"] = mount["name"] == name or mount.get("readOnly", False)
    return {"name": name, "hostPath": {"path": str(directory), "type": "Directory"}}


def _directory(volume: Resource, *, pod: str, objects: Objects, disks: Disks) -> tuple[Path, bool]:
    """What is mounted for the volume, and whether it is given to the pod's fsGroup."""
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
            return _written(disks.of_pod(pod, volume["name"]), objects["Secret", name]["stringData"], mode), True
    raise AssertionError(f"no such volume is known here: {volume}")


def _variable(variable: Resource, objects: Objects) -> Iterator[dict[str, Any]]:
    """Itself, or with the value that a Secret holds for it; none where that is optional and not there."""
    wanted = variable.get("valueFrom", {}).get("secretKeyRef")
    if wanted is None:
        yield variable
    elif ("Secret", wanted["name"]) in objects or not wanted.get("optional"):
        yield {"name": variable["name"], "value": objects["Secret", wanted["name"]]["stringData"][wanted["key"]]}


def _environment(container: Resource, objects: Objects) -> dict[str, str]:
    """What `$(NAME)` in the container's words stands for."""
    known: dict[str, str] = {}
    for source in container.get("envFrom", []):
        known |= objects["ConfigMap", source["configMapRef"]["name"]]["data"]
    for variable in container["env"]:
        wanted = variable.get("valueFrom", {}).get("configMapKeyRef")
        known[variable["name"]] = objects["ConfigMap", wanted["name"]]["data"][wanted["key"]] if wanted else variable["value"]
    return known


def _expanded(word: str, known: Mapping[str, str]) -> str:
    """Names that are not known stay as they are, which an engine or a fetch would then choke on."""
    return re.sub(r"\$\(([A-Za-z_]+)\)", lambda match: known.get(match[1], match[0]), word)


def _give_to_group(directory: Path, group: int) -> None:
    """The root and the files in it; OnRootMismatch spares what is deeper."""
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
