"""KServe's kinds on the throw-away cluster, and a namespace in which KServe would run."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Api, of_kubeconfig
from tests.cluster.api import Cluster, cluster
from tests.lab.waiting import wait_until

CRDS = Path(__file__).parent / "crds" / "crds.yaml"
KINDS = ("localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups", "localmodelnodes", "inferenceservices")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test works: KServe's namespace, that of its downloads, one of a team, and the label of the test's own nodes."""

    kserve: str
    jobs: str
    team: str
    mark: str


@pytest.fixture(scope="session")
def plane() -> Cluster:
    """A cluster with KServe's kinds, without objects of them."""
    found = cluster()
    assert found.run("apply", "--validate=false", "-f", str(CRDS)).returncode == 0
    for kind in KINDS:
        name = f"{kind}.serving.kserve.io"
        wait_until(lambda name=name: found.run("get", name, "-A").returncode == 0, f"{kind} are served")  # type: ignore[misc]
    return found


@pytest.fixture
def place(plane: Cluster) -> Iterator[Place]:
    """Namespaces of the test alone, with KServe's configuration. What it leaves is removed, with whatever finalizers."""
    mark = f"kserve-{uuid.uuid4().hex[:8]}"
    made = Place(mark, f"{mark}-jobs", f"{mark}-team", mark)
    for namespace in (made.kserve, made.jobs, made.team):
        assert plane.run("create", "namespace", namespace).returncode == 0
    config = {"localModel": json.dumps({"enabled": True, "jobNamespace": made.jobs})}
    metadata = {"name": "inferenceservice-config", "namespace": made.kserve}
    assert plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config}) == ""
    yield made
    _remove_all(plane, made)


@pytest.fixture
async def api(plane: Cluster) -> AsyncIterator[Api]:
    async with Api(of_kubeconfig(Path(plane.kubeconfig)), manager="weightlift-test") as made:
        yield made


def _remove_all(plane: Cluster, place: Place) -> None:
    """Remove what a test has left, in few calls: each starts a kubectl."""
    names = ",".join(f"{kind}.serving.kserve.io" for kind in KINDS)
    found = json.loads(plane.run("get", names, "-A", "-o", "json").stdout)["items"]
    for each in found:
        metadata = each["metadata"]
        where = ["-n", metadata["namespace"]] if "namespace" in metadata else []
        if metadata["name"].startswith(place.mark) and metadata.get("finalizers"):
            patch = '{"metadata":{"finalizers":null}}'
            plane.run("patch", f"{each['kind'].lower()}.serving.kserve.io", metadata["name"], *where, "--type=merge", "-p", patch)
    left = [f"{each['kind'].lower()}.serving.kserve.io/{each['metadata']['name']}" for each in found if _is_of_the_cluster(each, place)]
    if left:
        plane.run("delete", "--wait=false", "--ignore-not-found", *left)
    plane.run("delete", "nodes,persistentvolumes", "-l", f"test={place.mark}", "--wait=false")
    plane.run("delete", "namespaces", place.kserve, place.jobs, place.team, "--wait=false")


def _is_of_the_cluster(document: dict[str, Any], place: Place) -> bool:
    """Whether an object of the test goes with no namespace."""
    return "namespace" not in document["metadata"] and document["metadata"]["name"].startswith(place.mark)
