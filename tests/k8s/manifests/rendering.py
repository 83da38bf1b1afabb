"""The manifests as `kubectl apply -k` sends them, and access to their parts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.lab.availability import program

Resource = dict[str, Any]

K8S = Path(__file__).parents[3] / "k8s"

OVERLAYS = tuple(sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml")))
STORES = tuple(sorted(path.parent for path in K8S.glob("stores/*/kustomization.yaml")))
"""An overlay for each way to be let in by a store."""

INTEGRATIONS = tuple(K8S / "integrations" / name for name in ("flexinfer", "llmkube", "modelplane"))
"""Integrations whose workloads are our own Pods, which the tests run."""

_ORDER = ("Job", "CronJob", "DaemonSet", "Deployment")
"""Kinds that fetch come before kinds that serve."""


def render(directory: Path) -> tuple[Resource, ...]:
    """Return every resource of a kustomization. Raises AssertionError if kubectl fails."""
    return tuple(yaml.safe_load_all(_rendered(directory)))


@cache
def _rendered(directory: Path) -> str:
    kubectl = program("kubectl", package="kubectl")
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), f"kubectl kustomize {directory}: {done.stderr}"
    return done.stdout


def workloads(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return the workloads, those first that others wait for."""
    chosen = [resource for resource in resources if resource["kind"] in _ORDER]
    return tuple(sorted(chosen, key=lambda resource: _ORDER.index(resource["kind"])))


def every_workload() -> Iterator[tuple[str, Resource]]:
    """Yield every workload of `OVERLAYS`, `STORES` and `INTEGRATIONS` with the name of its directory."""
    for directory in (*OVERLAYS, *STORES, *INTEGRATIONS):
        for workload in workloads(render(directory)):
            yield directory.name, workload


def named(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    """Return the resource of this kind and name. Raises StopIteration if it is missing."""
    return next(each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name))


def job_spec(workload: Resource) -> Resource:
    """Return the specification of the pods' template; for a CronJob that of its Jobs."""
    spec: Resource = workload["spec"]
    return spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec


def template_of(workload: Resource) -> Resource:
    template: Resource = job_spec(workload)["template"]
    return template


def pod_spec(workload: Resource) -> Resource:
    spec: Resource = template_of(workload)["spec"]
    return spec


def containers(spec: Resource) -> list[Resource]:
    """Return all containers in the order in which they start."""
    return [*spec.get("initContainers", []), *spec["containers"]]
