"""Controller and agents as processes, a real API server and a real Hub: a pool in which peers are on."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cluster.client.endpoints import SECRETS
from cluster.names import PEER_SECRET
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.playing import CACHES, POOLS, Stage, controller, document, stage
from tests.cluster.faults import Send, faulty_api

MiB = 1024 * 1024
FILES = {"config.json": b"{}", **{f"model-{number}.safetensors": os.urandom(33 * MiB + number) for number in range(3)}}
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        await made.api.create(SECRETS, {**document(SECRETS, PEER_SECRET, made.name), "type": "Opaque"})
        yield made


@pytest.fixture
def binding(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of an API server that has the admission policy, whose API is newer than the cluster of the tests."""
    with faulty_api() as front:
        policy = {"metadata": {"name": "weightlift-agents"}}
        front.fail(Send([json.dumps(policy).encode()]), path="validatingadmissionpolic")
        yield front.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        yield running


@pytest.fixture
def nodes(cluster: Stage, origin: Origin, tmp_path: Path) -> Iterator[list[Node]]:
    """The agents of all nodes, each with an address of its own."""
    net = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}"
    words = ("--hub-endpoint", origin.endpoint, "--allow-loopback")
    play = Play(kubernetes(), tmp_path, {"HF_ENDPOINT": origin.endpoint}, words, namespace=cluster.name)
    with ExitStack() as stack:
        made = []
        for number, name in enumerate(cluster.nodes, start=1):
            node = Node(name, tmp_path / name, play)
            node.root.mkdir()
            stack.callback(node.kill)
            node.start("--peer-address", f"{net}.{number}")
            made.append(node)
        yield made


@contextmanager
def deployed(cluster: Stage, log: Path, *options: str, bound_by: Path) -> Iterator[None]:
    """Run a controller, and the next one when it has ended, as a Deployment does: on a busy machine it can lose its Lease."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with controller(cluster, log, *options, bound_by=bound_by) as process:
                while process.poll() is None and not over.wait(0.1):
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def ready(cluster: Stage) -> dict[str, int]:
    """Wait until all copies are ready, and return what the model says of them."""

    async def complete() -> bool:
        return bool((await cluster.status("m")).get("progress") == "3/3")

    await cluster.until("all copies are ready", complete, within=180)
    return dict((await cluster.status("m"))["copies"])


async def every_byte(cluster: Stage, nodes: list[Node]) -> None:
    """Compare what lies on each node with what is published."""
    (key,) = (await cluster.wanted(cluster.nodes[0])).keys()
    for node in nodes:
        assert {name: (node.root / key / name).read_bytes() for name in FILES} == FILES


@pytest.mark.timeout(500)
async def test_nodes_in_turn_get_everything_from_those_before_and_the_source_sends_the_model_once(
    cluster: Stage, origin: Origin, nodes: list[Node], binding: Path, tmp_path: Path
) -> None:
    pool = {"peers": {"mode": "On"}, "maxFetching": 1, "allowRootFilesystem": True, "minFree": "0"}
    await cluster.pool(**pool)
    with deployed(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint, bound_by=binding):

        async def certified() -> bool:
            told = (await cluster.api.get(POOLS, cluster.name)).get("status", {}).get("conditions", [])
            return any((each["type"], each["status"]) == ("Peers", "True") and "3 of 3" in each["message"] for each in told)

        await cluster.until("each node has a certificate", certified, within=180)
        await cluster.model("m", "hf://org/model")
        copies = await ready(cluster)
    assert (copies["bytesFromOrigin"], copies["bytesFromPeers"]) == (TOTAL, 2 * TOTAL)
    await every_byte(cluster, nodes)
    log = (tmp_path / "log").read_text()
    assert "PRIVATE" not in log + str([await cluster.find(CACHES, name) for name in cluster.nodes])


@pytest.mark.timeout(500)
async def test_nodes_that_begin_together_share_what_they_ask_of_the_source(
    cluster: Stage, origin: Origin, nodes: list[Node], binding: Path, tmp_path: Path
) -> None:
    await cluster.pool(peers={"mode": "On"}, allowRootFilesystem=True, minFree="0")
    with deployed(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint, bound_by=binding):

        async def certified() -> bool:
            seen = [await cluster.find(CACHES, name) for name in cluster.nodes]
            return all(each is not None and "certificate" in each["spec"].get("peers", {}) for each in seen)

        await cluster.until("each node has a certificate", certified, within=180)
        await cluster.model("m", "hf://org/model")
        copies = await ready(cluster)
    await every_byte(cluster, nodes)
    assert copies["bytesFromOrigin"] + copies["bytesFromPeers"] >= 3 * TOTAL
    assert TOTAL <= copies["bytesFromOrigin"] < 3 * TOTAL
    assert copies["bytesFromPeers"] > 0
    print(f"{copies['bytesFromOrigin'] / TOTAL:.2f} of the model from the source")
