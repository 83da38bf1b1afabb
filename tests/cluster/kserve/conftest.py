"""KServe's kinds on the throw-away cluster, and a namespace in which KServe would run."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Api, ApiError, Endpoint, endpoint_of, of_kubeconfig
from cluster.client.endpoints import CONFIG_MAPS, NAMESPACES, NODES, VOLUMES
from cluster.kserve.kinds import LOCAL_MODEL_CACHE, LOCAL_MODEL_NAMESPACE_CACHE, LOCAL_MODEL_NODE, LOCAL_MODEL_NODE_GROUP
from cluster.kserve.observing import SERVICES
from tests.cluster.agent.conftest import directory as directory
from tests.cluster.api import Cluster, cluster
from tests.cluster.kserve.direct import asked

CRDS = Path(__file__).parent / "crds" / "crds.yaml"
KINDS = (
    endpoint_of(LOCAL_MODEL_CACHE),
    endpoint_of(LOCAL_MODEL_NAMESPACE_CACHE),
    endpoint_of(LOCAL_MODEL_NODE_GROUP),
    endpoint_of(LOCAL_MODEL_NODE),
    SERVICES,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test works: KServe's namespace, that of its downloads, one of a team, and the label of the test's own nodes."""

    kserve: str
    jobs: str
    team: str
    mark: str


@pytest.fixture(scope="session")
def plane() -> Cluster:
    """A cluster with KServe's kinds."""
    found = cluster()
    assert found.run("apply", "--validate=false", "-f", str(CRDS)).returncode == 0
    found.settle(*(f"{kind.plural}.{kind.api_version.partition('/')[0]}" for kind in KINDS))
    return found


@pytest.fixture
def place(plane: Cluster) -> Iterator[Place]:
    """Namespaces of the test alone, with KServe's configuration. What it leaves is removed, with whatever finalizers."""
    mark = f"kserve-{uuid.uuid4().hex[:8]}"
    made = Place(mark, f"{mark}-jobs", f"{mark}-team", mark)
    asked(plane.kubeconfig, lambda api: _prepare(api, made))
    yield made
    asked(plane.kubeconfig, lambda api: _remove_all(api, made))


@pytest.fixture
async def api(plane: Cluster) -> AsyncIterator[Api]:
    async with Api(of_kubeconfig(Path(plane.kubeconfig)), manager="weightlift-test") as made:
        yield made


async def _prepare(api: Api, place: Place) -> None:
    for namespace in (place.kserve, place.jobs, place.team):
        await api.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    config = {"localModel": json.dumps({"enabled": True, "jobNamespace": place.jobs})}
    metadata = {"name": "inferenceservice-config", "namespace": place.kserve}
    await api.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": config})


async def _remove_all(api: Api, place: Place) -> None:
    for endpoint in (*KINDS, NODES, VOLUMES, NAMESPACES):
        for each in (await api.list(endpoint)).items:
            if each["metadata"]["name"].startswith(place.mark):
                await _remove(api, endpoint, each["metadata"])


async def _remove(api: Api, endpoint: Endpoint, metadata: dict[str, Any]) -> None:
    name, namespace = metadata["name"], metadata.get("namespace", "")
    with suppress(ApiError):  # it may be gone already
        if metadata.get("finalizers") and endpoint in KINDS:
            await api.merge(endpoint, name, namespace, {"metadata": {"finalizers": None}})
        await api.delete(endpoint, name, namespace, uid=metadata["uid"])
