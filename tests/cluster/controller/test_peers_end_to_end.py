"""A controller that leads, agents as processes, a real API server and a real Hub: a pool in which peers are on."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from cluster.client import Api, of_kubeconfig
from cluster.client.endpoints import SECRETS
from cluster.controller.options import config_from
from cluster.controller.running import Controller
from cluster.names import PEER_SECRET
from cluster.together import first_of
from fetcher.events import Event
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.playing import CACHES, Stage, document, stage
from tests.lab.servers import free_port

MiB = 1024 * 1024
FILES = {"config.json": b"{}", **{f"model-{number}.safetensors": os.urandom(33 * MiB + number) for number in range(2)}}
TOTAL = sum(map(len, FILES.values()))
PATIENCE = 240.0


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        await made.api.create(SECRETS, {**document(SECRETS, PEER_SECRET, made.name), "type": "Opaque"})
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        yield running


@pytest.fixture
def nodes(cluster: Stage, origin: Origin, tmp_path: Path) -> Iterator[list[Node]]:
    """The agents of all nodes, each with an address of its own."""
    port = str(free_port())  # the usual one may be taken: tests run side by side, also with the network of this machine
    net = f"127.{random.randint(64, 250)}.{random.randint(0, 250)}"
    words = ("--hub-endpoint", origin.endpoint, "--allow-loopback", "--namespace", cluster.name)
    play = Play(kubernetes(), tmp_path, {"HF_ENDPOINT": origin.endpoint}, words, namespace=cluster.name)
    with ExitStack() as stack:
        made = []
        for number, name in enumerate(cluster.nodes, start=1):
            node = Node(name, tmp_path / name, play)
            node.root.mkdir()
            stack.callback(node.kill)
            node.start("--peer-address", f"{net}.{number}", "--peer-port", port)
            made.append(node)
        yield made


@asynccontextmanager
async def leading(cluster: Stage, origin: Origin) -> AsyncIterator[list[Event]]:
    """Let a controller act as it does while it leads. Yield what it tells."""
    told: list[Event] = []
    options = {
        "image": "example.com/weightlift:0.1.0",
        "hub_endpoint": origin.endpoint,
        "allow_loopback": True,
        "status_interval": 0.2,
    }
    async with Api(of_kubeconfig(cluster.kubeconfig), manager="weightlift-controller") as api:
        controller = Controller(api, config_from(options, {}, cluster.name), told.append)
        running = asyncio.ensure_future(first_of(controller.observe(), controller.lead()))
        try:
            yield told
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def certified(cluster: Stage) -> None:
    """Wait until each node has a certificate."""

    async def true() -> bool:
        seen = [await cluster.find(CACHES, name) for name in cluster.nodes]
        return all(each is not None and "certificate" in each["spec"].get("peers", {}) for each in seen)

    await cluster.until("each node has a certificate", true, within=PATIENCE)


async def ready(cluster: Stage) -> dict[str, int]:
    """Wait until all copies are ready, and return what the model says of them."""

    async def complete() -> bool:
        return bool((await cluster.status("m")).get("progress") == "3/3")

    await cluster.until("all copies are ready", complete, within=PATIENCE)
    return dict((await cluster.status("m"))["copies"])


async def every_byte(cluster: Stage, nodes: list[Node]) -> None:
    """Compare what lies on each node with what is published."""
    (key,) = (await cluster.wanted(cluster.nodes[0])).keys()
    for node in nodes:
        assert {name: (node.root / key / name).read_bytes() for name in FILES} == FILES


@pytest.mark.timeout(600)
async def test_nodes_in_turn_get_everything_from_those_before_and_the_source_sends_the_model_once(
    cluster: Stage, origin: Origin, nodes: list[Node]
) -> None:
    await cluster.pool(peers={"mode": "On"}, maxFetching=1, allowRootFilesystem=True, minFree="0")
    async with leading(cluster, origin) as told:
        await certified(cluster)
        await cluster.model("m", "hf://org/model")
        copies = await ready(cluster)
    await every_byte(cluster, nodes)
    assert (copies["bytesFromOrigin"], copies["bytesFromPeers"]) == (TOTAL, 2 * TOTAL)
    assert "PRIVATE" not in str(told) + str([await cluster.find(CACHES, name) for name in cluster.nodes])


@pytest.mark.timeout(600)
async def test_nodes_that_begin_together_share_what_they_ask_of_the_source(
    cluster: Stage, origin: Origin, nodes: list[Node]
) -> None:
    await cluster.pool(peers={"mode": "On"}, allowRootFilesystem=True, minFree="0")
    async with leading(cluster, origin):
        await certified(cluster)
        await cluster.model("m", "hf://org/model")
        copies = await ready(cluster)
    await every_byte(cluster, nodes)
    assert copies["bytesFromOrigin"] + copies["bytesFromPeers"] >= 3 * TOTAL
    assert TOTAL <= copies["bytesFromOrigin"] < 3 * TOTAL
