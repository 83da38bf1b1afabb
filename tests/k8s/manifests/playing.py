"""A node that runs pods with podman."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.manifests.kubelet import Disks, pod_of
from tests.k8s.manifests.rendering import Resource, containers
from tests.lab.containers import Container, Podman
from tests.lab.waiting import wait_until

_numbers = count()


@dataclass(frozen=True, slots=True)
class PlayedPod:
    """A pod after its init containers have ended. `started`: all of them ended with 0, so the containers run.

    `output`: podman's output.
    """

    podman: Podman
    spec: Resource
    started: bool
    output: str

    @property
    def name(self) -> str:
        name: str = self.spec["metadata"]["name"]
        return name

    def container(self, name: str) -> Container:
        return Container(self.podman, f"{self.name}-{name}")

    def exit_codes(self) -> dict[str, int]:
        """Wait for the end of all containers and return their exit codes, in the order in which they start."""
        return {each["name"]: self.container(each["name"]).wait() for each in containers(self.spec["spec"])}

    def report(self) -> dict[str, Any]:
        """Return the report of the stand-in for an engine."""
        engine = self.container("engine")
        wait_until(lambda: "\n" in engine.logs(), "the engine has read the model")
        report: dict[str, Any] = json.loads(engine.logs().splitlines()[0])
        return report

    def logs(self) -> str:
        return "\n".join(f"{each['name']}: {self.container(each['name']).logs()}" for each in containers(self.spec["spec"]))


@dataclass(frozen=True, slots=True)
class Node:
    """A node. `instead` replaces images and addresses of the manifests by those of this machine."""

    podman: Podman
    disks: Disks
    workspace: Path
    instead: Mapping[str, str]

    @contextmanager
    def playing(self, workload: Resource, resources: Iterable[Resource]) -> Iterator[PlayedPod]:
        """Run the init containers of the workload's pod to their end, then the pod until the block ends."""
        local = [substituted(resource, self.instead) for resource in resources]
        objects = {(each["kind"], each["metadata"]["name"]): each for each in local}
        name = f"{workload['metadata']['name']}-{os.getpid()}-{next(_numbers)}"
        pod = pod_of(substituted(workload, self.instead), name=name, objects=objects, disks=self.disks)
        manifest = self.workspace / f"{name}.yaml"
        manifest.write_text(yaml.safe_dump_all([*(each for each in local if each["kind"] == "ConfigMap"), pod]))
        try:
            done = self.podman("kube", "play", manifest, timeout=120)
            played = PlayedPod(self.podman, pod, done.returncode == 0, done.stdout + done.stderr)
            with showing(played):
                yield played
        finally:
            self.podman("pod", "rm", "--force", "--time=0", name)


@contextmanager
def showing(pod: PlayedPod) -> Iterator[None]:
    """Print the logs of the pod's containers if the test fails."""
    try:
        yield
    except AssertionError:
        print(pod.output, pod.logs(), sep="\n")
        raise


def substituted(value: Any, instead: Mapping[str, str]) -> Any:
    """Return a copy in which strings are replaced by those of `instead`."""
    match value:
        case dict():
            return {name: substituted(each, instead) for name, each in value.items()}
        case list():
            return [substituted(each, instead) for each in value]
        case str():
            return instead.get(value, value)
    return value
