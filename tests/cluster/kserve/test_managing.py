"""KServe's manager at work on a real API server: names, owners and statuses are compared with KServe's contract."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cluster.client import Api, Missing, endpoint_of, of_kubeconfig
from cluster.client.endpoints import CLAIMS, JOBS, LEASES, NODES, PODS, VOLUMES, Endpoint
from cluster.kserve.beside_controller import managing as managing_beside
from cluster.kserve.kinds import LOCAL_MODEL_CACHE, LOCAL_MODEL_NAMESPACE_CACHE, LOCAL_MODEL_NODE, LOCAL_MODEL_NODE_GROUP
from cluster.kserve.managing import Manager
from cluster.kserve.names import key_of
from cluster.kserve.observing import SERVICES
from cluster.kserve.world import Importing
from fetcher.testing.origin import Origin
from tests.cluster.api import Cluster
from tests.cluster.kserve.conftest import Place
from tests.cluster.kserve.worlds import URI
from tests.lab.command import STORAGE_INITIALIZER, run_command

CACHES, NAMESPACED = endpoint_of(LOCAL_MODEL_CACHE), endpoint_of(LOCAL_MODEL_NAMESPACE_CACHE)
GROUPS, LOCAL_NODES = endpoint_of(LOCAL_MODEL_NODE_GROUP), endpoint_of(LOCAL_MODEL_NODE)
Document = dict[str, Any]


@asynccontextmanager
async def managing(api: Api, place: Place, importing: Importing | None = None) -> AsyncIterator[list[str]]:
    """A manager at work. Yields what it noted and complained about."""
    said: list[str] = []
    manager = Manager(
        api,
        place.kserve,
        importing,
        on_note=lambda subject, text: said.append(f"{subject}: {text}"),
        on_problem=lambda reason, text: said.append(f"{reason}: {text}"),
    )
    tasks = [asyncio.ensure_future(each) for each in (manager.observe(), manager.lead())]
    try:
        yield said
        assert not any(each.done() for each in tasks)
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)


async def becomes(what: str, look: Callable[[], Awaitable[Any]], *, within: float = 60.0) -> Any:
    """Return what `look` returns as soon as that is something. An object that is missing is nothing."""
    deadline = time.monotonic() + within
    while True:
        try:
            if found := await look():
                return found
        except Missing:
            pass
        assert time.monotonic() < deadline, f"expected within {within:g} s: {what}"
        await asyncio.sleep(0.1)


async def is_gone(api: Api, endpoint: Endpoint, name: str, namespace: str = "") -> None:
    async def look() -> bool:
        try:
            found = await api.get(endpoint, name, namespace)
        except Missing:
            return True
        return "deletionTimestamp" in found["metadata"] and endpoint in (CLAIMS, VOLUMES)

    await becomes(f"{name} is gone", look)


async def make(api: Api, endpoint: Endpoint, name: str, namespace: str = "", **body: Any) -> Document:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **body.pop("metadata", {})}
    return await api.create(endpoint, {"apiVersion": endpoint.api_version, "kind": endpoint.kind, "metadata": metadata, **body})


async def make_group(api: Api, place: Place) -> str:
    """A node group of the nodes of this test."""
    affinity = {"matchExpressions": [{"key": "test", "operator": "In", "values": [place.mark]}]}
    volume = {
        "local": {"path": "/mnt/models"},
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": place.mark,
        "persistentVolumeReclaimPolicy": "Retain",
        "nodeAffinity": {"required": {"nodeSelectorTerms": [affinity]}},
    }
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": place.mark, "resources": {"requests": {"storage": "1Gi"}}}
    name = f"{place.mark}-gpu"
    spec = {"storageLimit": "1Gi", "persistentVolumeSpec": volume, "persistentVolumeClaimSpec": claim}
    await make(api, GROUPS, name, spec=spec)
    return name


async def make_node(api: Api, place: Place, number: int = 1) -> str:
    """A node that is ready. It stays so for some 40 seconds, since no kubelet renews it."""
    name = f"{place.mark}-n{number}"
    await make(api, NODES, name, metadata={"labels": {"test": place.mark}})
    conditions = [{"type": "Ready", "status": "True", "reason": "Test"}]
    await api.merge(NODES, name, "", {"status": {"conditions": conditions}}, subresource="status")
    return name


async def make_cache(api: Api, place: Place, group: str, *, namespace: str = "") -> str:
    name = f"{place.mark}-m"
    spec = {"sourceModelUri": f"{URI}-{place.mark}", "modelSize": "1Gi", "nodeGroups": [group]}
    await make(api, NAMESPACED if namespace else CACHES, name, namespace, spec=spec)
    return name


async def make_service(api: Api, place: Place, model: str, *, of: str = "") -> str:
    labels = {"internal.serving.kserve.io/localmodel": model}
    if of:
        labels["internal.serving.kserve.io/localmodel-namespace"] = of
    await make(api, SERVICES, f"{place.mark}-s", place.team, metadata={"labels": labels}, spec={"predictor": {}})
    return f"{place.mark}-s"


async def report(api: Api, node: str, **statuses: str) -> None:
    """Report as the agent of a node does."""
    status = {"modelStatus": {name.replace("__", "/"): each for name, each in statuses.items()}}
    await api.merge(LOCAL_NODES, node, "", {"status": status}, subresource="status")


class TestCacheInASharedClaim:
    async def test_one_job_imports_it_verified_below_its_key_and_goes_with_the_cache_while_the_claim_stays(
        self, api: Api, place: Place, tmp_path: Path
    ) -> None:
        model, uri = f"{place.mark}-m", "hf://org/model"
        claimed = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "2Gi"}}, "storageClassName": ""}
        spec = {"sourceModelUri": uri, "modelSize": "1Gi", "pvcRef": "models"}

        async def is_ready(reason: str) -> Document | None:
            status = (await api.get(NAMESPACED, model, place.team)).get("status") or {}
            told = [each["reason"] for each in status.get("conditions") or ()]
            return status if told == [reason] else None

        async def pod() -> Document | None:
            found = (await api.list(PODS, place.team)).items
            return found[0] if found else None

        with Origin() as origin:
            origin.add_repo("org/model", {"config.json": b"{}", "model.safetensors": b"w" * 1000})
            async with managing(api, place, Importing("image", ("hf://",), origin.endpoint)):
                await make(api, NAMESPACED, model, place.team, spec=spec)
                await becomes("the claim is missed", lambda: is_ready("PVCNotFound"))
                await make(api, CLAIMS, "models", place.team, spec=claimed)
                job = await becomes("the Job", lambda: api.get(JOBS, f"{model}-import", place.team))
                started = await becomes("its pod", pod)
                (container,) = started["spec"]["containers"]
                volume = tmp_path / container["volumeMounts"][0]["subPath"]
                words = [
                    str(volume) if each == container["volumeMounts"][0]["mountPath"] else each for each in container["args"]
                ]
                given = {each["name"]: each["value"] for each in container["env"]}
                done = await asyncio.to_thread(run_command, STORAGE_INITIALIZER, *words, env=given)
                assert done.returncode == 0, done.stderr
                assert (volume / "model.safetensors").read_bytes() == b"w" * 1000
                assert volume.name == key_of(uri)
                ended = {"status": {"phase": "Succeeded"}}
                await api.merge(PODS, started["metadata"]["name"], place.team, ended, subresource="status")
                status = await becomes("it is Ready", lambda: is_ready("ImportSucceeded"))
                assert status["copies"] == {"available": 1, "total": 1, "failed": 0}

                cache = await api.get(NAMESPACED, model, place.team)
                await api.delete(NAMESPACED, model, place.team, uid=cache["metadata"]["uid"])
                await is_gone(api, JOBS, job["metadata"]["name"], place.team)
                await is_gone(api, NAMESPACED, model, place.team)
                assert "deletionTimestamp" not in (await api.get(CLAIMS, "models", place.team))["metadata"]


class TestClusterCache:
    async def test_rows_1_2_4_and_7_from_its_creation_to_its_copies(self, api: Api, place: Place) -> None:
        group, node = await make_group(api, place), await make_node(api, place)
        async with managing(api, place):
            model = await make_cache(api, place, group)

            local = await becomes("the node has the entry", lambda: api.get(LOCAL_NODES, node))
            claim = await becomes("its claim", lambda: api.get(CLAIMS, f"{model}-{group}", place.jobs))
            volume = await becomes("its volume", lambda: api.get(VOLUMES, f"{model}-{group}-download"))
            await report(api, node, **{model: "ModelDownloaded"})

            async def copied() -> Document | None:
                found = await api.get(CACHES, model)
                return found if (found.get("status") or {}).get("copies", {}).get("available") == 1 else None

            cache = await becomes("its status", copied)

        assert local["spec"]["localModels"] == [
            {"modelName": model, "sourceModelUri": f"{URI}-{place.mark}", "nodeGroup": group}
        ]
        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        for each in (claim, volume):
            (owner,) = each["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["uid"]) == ("LocalModelCache", cache["metadata"]["uid"])
        assert cache["metadata"]["finalizers"] == ["localmodel.kserve.io/finalizer"]
        assert cache["status"]["nodeStatus"] == {node: "NodeDownloaded"}
        assert cache["status"]["copies"] == {"available": 1, "total": 1, "failed": 0}

    async def test_rows_10_and_12_a_service_comes_goes_and_comes_again(self, api: Api, place: Place) -> None:
        group = await make_group(api, place)
        async with managing(api, place):
            model = await make_cache(api, place, group)
            name = f"{model}-{group}"

            async def bound() -> bool:
                return bool((await api.get(CLAIMS, name, place.team)).get("status", {}).get("phase") == "Bound")

            async def users() -> Any:
                return ((await api.get(CACHES, model)).get("status") or {}).get("inferenceServices")

            for _ in range(2):
                service = await make_service(api, place, model)
                await becomes("its claim is bound", bound)
                assert await becomes("it is listed", users) == [{"namespace": place.team, "name": service}]
                assert (await api.get(CLAIMS, name, place.team))["spec"]["volumeName"] == f"{name}-{place.team}"

                there = await api.get(SERVICES, service, place.team)
                await api.delete(SERVICES, service, place.team, uid=there["metadata"]["uid"])
                await is_gone(api, CLAIMS, name, place.team)

    async def test_row_15_it_can_be_deleted_though_its_node_group_is_gone(self, api: Api, place: Place) -> None:
        group, node = await make_group(api, place), await make_node(api, place)
        async with managing(api, place):
            model = await make_cache(api, place, group)
            await becomes("the node has the entry", lambda: api.get(LOCAL_NODES, node))
            await becomes("its claim", lambda: api.get(CLAIMS, f"{model}-{group}", place.jobs))

            await api.delete(GROUPS, group, uid=(await api.get(GROUPS, group))["metadata"]["uid"])
            await api.delete(CACHES, model, uid=(await api.get(CACHES, model))["metadata"]["uid"])

            await is_gone(api, CACHES, model)
            await is_gone(api, CLAIMS, f"{model}-{group}", place.jobs)
            await is_gone(api, VOLUMES, f"{model}-{group}-download")
            assert (await api.get(LOCAL_NODES, node))["spec"]["localModels"] == []

    async def test_a_node_that_is_gone_leaves_the_status(self, api: Api, place: Place) -> None:
        group = await make_group(api, place)
        node, other = await make_node(api, place), await make_node(api, place, 2)
        async with managing(api, place):
            model = await make_cache(api, place, group)

            async def nodes() -> set[str]:
                return set(((await api.get(CACHES, model)).get("status") or {}).get("nodeStatus", {}))

            await becomes("both are in the status", lambda: _equals(nodes, {node, other}))
            await api.delete(NODES, other, uid=(await api.get(NODES, other))["metadata"]["uid"])

            await becomes("one has left it", lambda: _equals(nodes, {node}))
            await is_gone(api, LOCAL_NODES, other)

    async def test_nothing_is_written_while_nothing_changes(self, api: Api, place: Place) -> None:
        group, node = await make_group(api, place), await make_node(api, place)
        async with managing(api, place):
            model = await make_cache(api, place, group)

            async def settled() -> bool:
                cache = await api.get(CACHES, model)
                return bool((cache.get("status") or {}).get("nodeStatus")) and bool(cache["metadata"].get("finalizers"))

            await becomes("it has a status", settled)
            await becomes("its claim", lambda: api.get(CLAIMS, f"{model}-{group}", place.jobs))
            before = await _versions(api, model, node)
            # A change that says nothing makes the manager look again, and the next one shows that it has looked.
            for _ in range(3):
                await api.merge(GROUPS, group, "", {"metadata": {"annotations": {"looked": str(time.time())}}})
                await asyncio.sleep(1.2)

            assert await _versions(api, model, node) == before


async def test_rows_3_10_and_12_a_namespaced_cache_and_a_service_beside_it(api: Api, place: Place) -> None:
    group = await make_group(api, place)
    async with managing(api, place):
        model = await make_cache(api, place, group, namespace=place.team)
        service = await make_service(api, place, model, of=place.team)
        download, serving = f"{model}-{group}-{place.team}-download", f"{model}-{group}-{place.team}"

        volume = await becomes("its volume", lambda: api.get(VOLUMES, download))
        await becomes("its claim", lambda: api.get(CLAIMS, download, place.jobs))
        await becomes("the volume of the service", lambda: api.get(VOLUMES, serving))
        claim = await becomes("the claim of the service", lambda: api.get(CLAIMS, f"{model}-{group}", place.team))
        assert "ownerReferences" not in volume["metadata"]
        assert claim["metadata"]["ownerReferences"][0]["kind"] == "LocalModelNamespaceCache"

        await api.delete(SERVICES, service, place.team, uid=(await api.get(SERVICES, service, place.team))["metadata"]["uid"])
        await is_gone(api, CLAIMS, f"{model}-{group}", place.team)
        await is_gone(api, VOLUMES, serving)

        there = await api.get(NAMESPACED, model, place.team)
        assert there["metadata"]["finalizers"] == ["localmodelnamespacecache.kserve.io/finalizer"]
        await api.delete(NAMESPACED, model, place.team, uid=there["metadata"]["uid"])
        await is_gone(api, NAMESPACED, model, place.team)
        await is_gone(api, VOLUMES, download)
        await is_gone(api, CLAIMS, download, place.jobs)


async def test_without_kserves_configuration_it_says_so_and_writes_nothing(api: Api, place: Place) -> None:
    group = await make_group(api, place)
    elsewhere = Place(place.jobs, place.jobs, place.team, place.mark)
    async with managing(api, elsewhere) as said:
        model = await make_cache(api, place, group)
        expected = f"Waiting: ConfigMap {place.jobs}/inferenceservice-config is missing; install KServe first"
        await becomes("its complaint", lambda: _contains(said, expected))

        assert "finalizers" not in (await api.get(CACHES, model))["metadata"]


class TestLeadership:
    async def test_it_waits_while_kserves_own_manager_holds_its_lease_and_then_acts(
        self, plane: Cluster, api: Api, place: Place
    ) -> None:
        group = await make_group(api, place)
        model = await make_cache(api, place, group)
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": "kserves", "leaseDurationSeconds": 3, "renewTime": moment, "leaseTransitions": 1}
        lease = await make(api, LEASES, "kserve-local-model-manager-leader-lock", place.kserve, spec=spec)
        access, options = of_kubeconfig(Path(plane.kubeconfig)), {"kserve_namespace": place.kserve, "image": "example.com/w:1"}
        api_of = partial(Api, access, manager="weightlift-test")
        task = asyncio.ensure_future(managing_beside(api_of, options, lambda _: None, identity="ours"))
        try:
            for _ in range(4):  # its manager renews
                lease["spec"]["leaseTransitions"] += 1
                lease = await api.replace(LEASES, lease)
                await asyncio.sleep(1)
                assert "finalizers" not in (await api.get(CACHES, model))["metadata"]

            await becomes("ours acts", lambda: _has_finalizer(api, model))

            holder = (await api.get(LEASES, lease["metadata"]["name"], place.kserve))["spec"]["holderIdentity"]
            assert holder.startswith("ours")
        finally:
            task.cancel()
            await asyncio.wait([task])

        released = await api.get(LEASES, lease["metadata"]["name"], place.kserve)
        assert released["spec"]["holderIdentity"] == ""


async def _has_finalizer(api: Api, model: str) -> bool:
    return bool((await api.get(CACHES, model))["metadata"].get("finalizers"))


async def _equals(look: Callable[[], Awaitable[Any]], expected: Any) -> bool:
    return bool(await look() == expected)


async def _contains(said: list[str], expected: str) -> bool:
    return expected in said


async def _versions(api: Api, model: str, node: str) -> tuple[str, str]:
    found = [await api.get(CACHES, model), await api.get(LOCAL_NODES, node)]
    return found[0]["metadata"]["resourceVersion"], found[1]["metadata"]["resourceVersion"]
