"""The system is uninstalled with its kinds, and installed again: what lies on nodes is Ready, and no byte is fetched again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cluster.client import Endpoint, Missing
from cluster.client.endpoints import CLAIMS, VOLUMES
from cluster.controller.volumes import volume_name
from cluster.resources import NODE_CACHE
from cluster.resources.crds import KINDS
from cluster.resources.kinds import GROUP
from fetcher.testing.origin import Origin
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.playing import CACHES, FILES, MODELS, POOLS, Document, Stage, controller, stage
from tests.cluster.crash.lot import Lot, Machine, lot, sha256
from tests.cluster.faults import Front, Refuse, Send, faulty_api
from tests.lab.waiting import wait_until

CRDS = [f"{kind.plural}.{GROUP}" for kind in KINDS]
NODES = f"{NODE_CACHE.plural}.{GROUP}"
HELD = "tests.weightlift.dev/held"
"""A finalizer by which a kind is being removed for as long as the test wants."""
NAMES = ("kept", "moving")
POOL = {"allowRootFilesystem": True, "minFree": "0", "maxFetching": 2}
_LOOKS = 2.5
"""Seconds in which the controller of a small cluster looks at it twice after a change."""


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    """A stage. Our kinds are there again after the test, whatever became of them: other tests of the cluster wait meanwhile."""
    async with stage() as made:
        yield made
        let_go()
        kubernetes().serve_kinds()


@pytest.fixture
def front() -> Iterator[Front]:
    with faulty_api() as made:
        yield made


@dataclass(frozen=True, slots=True)
class Lies:
    """What lies on a node: of each file of a model the inode, when it was last written, and its SHA-256. `fetched`:
    requests for bytes of models that its origin has had."""

    files: dict[str, tuple[int, int, str]]
    fetched: int

    @classmethod
    def on(cls, machine: Machine) -> Lies:
        paths = [path for path in machine.root.glob("[0-9a-f]*/**/*") if path.is_file()]
        files = {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, sha256(path.read_bytes())) for path in paths}
        return cls(files, sum(each.origin == "cdn" for each in machine.origin.requests))


async def test_by_the_book_no_byte_is_fetched_again(cluster: Stage, tmp_path: Path) -> None:
    """ModelCaches go first, then the pool, and then the rest with the kinds."""
    with lot(cluster, tmp_path, "--orphan-grace", "24h") as given:
        await given.begin()
        await install(cluster, given)
        before = [Lies.on(machine) for machine in given.machines]

        for name in NAMES:
            await given.withdraw(name)
        await cluster.until("agents have seen that nothing is wanted any more", lambda: unwanted(given))
        found = await cluster.api.get(POOLS, cluster.name)
        await cluster.api.delete(POOLS, cluster.name, uid=found["metadata"]["uid"])
        await gone(cluster, CACHES)
        end(given)
        remove(*CRDS, wait=True)

        kubernetes().serve_kinds()
        await cluster.pool(**POOL)
        await install(cluster, given)

        assert [Lies.on(machine) for machine in given.machines] == before
        assert all(each.files and each.fetched for each in before)


async def test_all_at_once_nothing_is_written_and_no_byte_is_fetched_again(
    cluster: Stage, front: Front, tmp_path: Path
) -> None:
    """The kinds go while controller and agents run: objects that vanish with their kind mean nothing."""
    kubeconfig = front.kubeconfig(tmp_path / "kubeconfig")
    with lot(cluster, tmp_path, "--orphan-grace", "24h", kubeconfig=kubeconfig) as given:
        await given.begin()
        await install(cluster, given)
        before, claims = [Lies.on(machine) for machine in given.machines], await mounted(cluster)
        await quiet(front)

        written = len(writes(front))
        hold(*CRDS)
        remove(NODES, wait=False)
        await gone(cluster, CACHES)
        await asyncio.sleep(_LOOKS)
        remove(*(each for each in CRDS if each != NODES), wait=False)
        await gone(cluster, MODELS)
        await asyncio.sleep(_LOOKS)
        assert writes(front)[written:] == []
        end(given)
        let_go()

        kubernetes().serve_kinds()
        await cluster.pool(**POOL)
        await install(cluster, given)

        assert [Lies.on(machine) for machine in given.machines] == before
        assert await mounted(cluster) == claims  # pods that mount them noticed nothing


async def test_what_vanishes_while_its_kind_may_be_going_takes_nothing_away(
    cluster: Stage, front: Front, tmp_path: Path
) -> None:
    """The watch of the kinds says that they are there. It can be behind, so they are asked for before anything is removed."""
    behind = replace(cluster, kubeconfig=front.kubeconfig(tmp_path / "kubeconfig"))
    await cluster.pool()
    await cluster.model("m", "hf://org/model")
    with Origin() as origin, controller(behind, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        origin.add_repo("org/model", FILES)

        async def has_claim() -> bool:
            return await cluster.claim("m") is not None

        async def has_none() -> bool:
            return not await has_claim()

        async def has_asked() -> bool:
            return front.count(path="customresourcedefinitions", watch=False) > asked

        await cluster.until("the claim is there", has_claim)
        going = {"metadata": {"name": NODES, "deletionTimestamp": "2026-01-01T00:00:00Z"}}
        answer = {"kind": "CustomResourceDefinitionList", "metadata": {"resourceVersion": "1"}, "items": [going]}
        for fault in (Refuse(503), Send([json.dumps(answer).encode()])):
            front.heal()
            front.fail(fault, path="customresourcedefinitions", watch=False)
            asked = front.count(path="customresourcedefinitions", watch=False)
            await cluster.clear_models()
            await cluster.model(f"m{asked}", "hf://org/other")  # which makes it look
            await cluster.until("it has asked", has_asked)
            await asyncio.sleep(_LOOKS)
            assert await has_claim()
        front.heal()
        await cluster.clear_models()  # which makes it look again
        await cluster.until("the claim of the model that is gone is removed", has_none)


async def install(cluster: Stage, given: Lot) -> None:
    """Declare the models, start all processes, and wait until every model is on every node."""
    for name in NAMES:
        await given.declare(name)
    for victim in given.victims:
        given.start(victim)
    await cluster.until("every model is on every node", given.converged)


async def unwanted(given: Lot) -> bool:
    return not any([(await given.status(machine)).artifacts for machine in given.machines])


def end(given: Lot) -> None:
    """End all processes in order, as the kubelet ends those of workloads that are deleted."""
    for victim in given.victims:
        assert victim.process is not None
        victim.process.terminate()
        victim.process.join(timeout=30)
        victim.stop()


def hold(*names: str) -> None:
    """Let the removal of kinds last until `let_go`."""
    for name in names:
        patch = [{"op": "add", "path": "/metadata/finalizers", "value": [HELD]}]
        done = kubernetes().run("patch", "crd", name, "--type=json", "-p", json.dumps(patch))
        assert done.returncode == 0, done.stderr


def let_go() -> None:
    """End every removal of a kind that `hold` keeps."""
    for each in _crds():
        finalizers = [name for name in each["metadata"].get("finalizers", ()) if name != HELD]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": each["metadata"]["resourceVersion"]}}
        if HELD in each["metadata"].get("finalizers", ()):
            kubernetes().run("patch", "crd", each["metadata"]["name"], "--type=merge", "-p", json.dumps(patch))
    wait_until(lambda: not any(each["metadata"].get("deletionTimestamp") for each in _crds()), "no kind is being removed")


def remove(*names: str, wait: bool) -> None:
    done = kubernetes().run("delete", "crd", *names, f"--wait={str(wait).lower()}", "--timeout=50s")
    assert done.returncode == 0, done.stderr


def _crds() -> list[Document]:
    found: list[Document] = json.loads(kubernetes().run("get", "crd", "-o", "json").stdout)["items"]
    return [each for each in found if each["metadata"]["name"] in CRDS]


async def gone(cluster: Stage, endpoint: Endpoint) -> None:
    async def none() -> bool:
        try:
            return not (await cluster.api.list(endpoint)).items
        except Missing:
            return True

    await cluster.until(f"there is no {endpoint.kind}", none)


async def mounted(cluster: Stage) -> list[str]:
    """The UIDs of the models' claims and volumes."""
    found = [await cluster.api.get(CLAIMS, name, cluster.tenant) for name in NAMES]
    found += [await cluster.api.get(VOLUMES, volume_name((cluster.tenant, name))) for name in NAMES]
    return [each["metadata"]["uid"] for each in found]


def writes(front: Front) -> list[tuple[str, str]]:
    """What controller and agents have written, apart from signs of life."""
    return [(each.method, each.path) for each in list(front.asked) if each.method != "GET" and "/leases" not in each.path]


async def quiet(front: Front) -> None:
    """Wait until nobody has anything to write any more."""
    while True:
        count = len(writes(front))
        await asyncio.sleep(_LOOKS)
        if len(writes(front)) == count:
            return
