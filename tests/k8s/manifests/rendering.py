"""The manifests as `kubectl apply -k` would send them, and the parts of them that tests ask for."""

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
INTEGRATIONS = tuple(K8S / "integrations" / name for name in ("flexinfer", "llmkube", "modelplane"))
"""Those whose workloads are Pods of ours, played here."""

_ORDER = ("Job", "DaemonSet", "Deployment")
"""Who fetches before who serves."""


def render(directory: Path) -> tuple[Resource, ...]:
    """Every resource of a kustomization. Raises subprocess.CalledProcessError."""
    return tuple(yaml.safe_load_all(_rendered(directory)))


@cache
def _rendered(directory: Path) -> str:
    kubectl = program("kubectl", package="kubectl")
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), f"kubectl kustomize {directory}: {done.stderr}"
    return done.stdout


def workloads(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """What makes pods, those first on whose work the others wait."""
    found = [resource for resource in resources if resource["kind"] in _ORDER]
    return tuple(sorted(found, key=lambda resource: _ORDER.index(resource["kind"])))


def every_workload() -> Iterator[tuple[str, Resource]]:
    """All of `OVERLAYS` and `INTEGRATIONS`, each with the name of its directory."""
    for directory in (*OVERLAYS, *INTEGRATIONS):
        for workload in workloads(render(directory)):
            yield directory.name, workload


def named(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    """Raises StopIteration when there is none."""
    return next(each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name))


def pod_spec(workload: Resource) -> Resource:
    spec: Resource = workload["spec"]["template"]["spec"]
    return spec


def containers(spec: Resource) -> list[Resource]:
    """In the order in which they start."""
    return [*spec.get("initContainers", []), *spec["containers"]]
