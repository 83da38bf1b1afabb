"""Fetches of several nodes that are each other's peers: real servers and a Hub that counts bytes, all in this process.

Every file is less than a chunk, so it is one chunk of the swarm.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ORIGIN, ArtifactRef, Digest
from fetcher.engine import Artifact
from fetcher.engine import fetch as engine_fetch
from fetcher.errors import Unreachable
from fetcher.events import Disputed, Event, MirrorAvoided, MirrorBanned, PeersFound
from fetcher.planning import owners, peer, swarm
from fetcher.serving import Server, Serving
from fetcher.settings import Settings
from fetcher.sources.mirrors import choosing
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Reset
from fetcher.testing.origin import Origin
from tests.engine.conftest import contents
from tests.lab.waiting import eventually

KiB = 1024
FILES = {f"model-{number:03}.safetensors": random_bytes(f"part {number}", 32 * KiB + number) for number in range(64)}
TOTAL = sum(map(len, FILES.values()))
URI = "hf://org/model"


class Node:
    """A root, perhaps a server of it, and what its fetch reports."""

    def __init__(self, nodes: Nodes, root: Path, *, served: bool) -> None:
        self.nodes = nodes
        self.root = root
        self.events: list[Event] = []
        self.server = Server(Serving(root=root), warn=lambda _: None) if served else None

    @property
    def where(self) -> str:
        return self.server.where if self.server is not None else ""

    async def fetch(self, **options: Any) -> Artifact:
        """Fetch with all nodes as peers, and compare every byte."""
        options.setdefault("mirrors", tuple(node.where for node in self.nodes.all if node.where))
        settings = Settings(cache_dir=self.root, max_concurrency=4, timeout_stall=20.0, **{"retry_for": 60.0, **options})
        artifact = await engine_fetch(ArtifactRef(URI), settings, self.events.append)
        assert contents(artifact.path) == self.nodes.files
        return artifact

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def stop(self) -> None:
        if self.server is not None:
            self.server.drain(0.0)
            self.server = None


class Nodes:
    """The nodes of a test, and their Hub, which has `files`."""

    def __init__(self, hub: Origin, place: Path, stack: ExitStack, files: Mapping[str, bytes] = FILES) -> None:
        self.hub = hub
        self.files = files
        self.all: list[Node] = []
        self._place = place
        self._stack = stack

    def node(self, *, served: bool = True) -> Node:
        root = self._place / f"node-{len(self.all)}"
        root.mkdir()
        self.all.append(node := Node(self, root, served=served))
        self._stack.callback(node.stop)
        return node

    async def complete(self) -> Node:
        """A node that has everything."""
        await (node := self.node()).fetch(mirrors=())
        return node

    async def together(self, *nodes: Node) -> list[asyncio.Task[Artifact]]:
        """Start to fetch, and return as soon as all know of each other: until then the Hub sends nothing."""
        self.hub.faults.add(Fault(Status(503, (("Retry-After", "1"),)), path="/resolve/"))
        tasks = [asyncio.create_task(node.fetch()) for node in nodes]

        def known(node: Node) -> bool:
            return any(event.peers >= len(nodes) - 1 for event in node.of(PeersFound))

        await eventually(lambda: all(map(known, nodes)), "all know of each other", timeout=60)
        self.hub.faults.clear()
        return tasks


def from_origin(*artifacts: Artifact) -> float:
    """What the origin sent, as a multiple of the model."""
    return sum(each.bytes_from.get(ORIGIN, 0) for each in artifacts) / TOTAL


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with Origin() as hub, ExitStack() as stack:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.add_repo("org/model", FILES)
        yield Nodes(hub, tmp_path, stack)


class TestTogether:
    async def test_nodes_that_start_together_ask_the_origin_once(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        for module, name in (
            (owners, "PATIENCE"),
            (peer, "SILENCE"),
            (swarm, "STARVED"),
        ):  # however busy this machine is, nobody is late
            monkeypatch.setattr(module, name, 1000.0)
        monkeypatch.setattr(choosing, "STALL", 20.0)
        tasks = await nodes.together(*(nodes.node() for _ in range(3)))
        artifacts = await asyncio.gather(*tasks)
        assert 1.0 <= from_origin(*artifacts) <= 1.25
        assert all(0.1 < from_origin(each) < 0.6 for each in artifacts), "each of them brings its share"
        assert all(each.verified for each in artifacts)

    async def test_the_share_of_a_node_that_dies_is_taken_over(self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
        for module, name in (
            (owners, "PATIENCE"),
            (swarm, "STARVED"),
        ):  # however busy this machine is, only who is silent is late
            monkeypatch.setattr(module, name, 1000.0)
        dying, *living = [nodes.node() for _ in range(3)]
        nodes.hub.throttle(total=TOTAL / 4)
        tasks = await nodes.together(dying, *living)
        await eventually(lambda: len(list(dying.root.rglob("*.safetensors"))) > 0, "it has begun")
        tasks[0].cancel()
        dying.stop()
        nodes.hub.throttle()
        artifacts = await asyncio.gather(*tasks[1:])
        assert from_origin(*artifacts) <= 1.5, "two nodes without peers would take 2"
        assert not [event for node in living for event in node.of(MirrorBanned)]
        await asyncio.wait(tasks)


class TestLate:
    async def test_who_comes_late_has_everything_from_its_peers(self, nodes: Nodes) -> None:
        first = await nodes.complete()
        second, third = nodes.node(), nodes.node()
        assert from_origin(await second.fetch()) < 0.3
        artifact = await third.fetch()
        assert artifact.bytes_from.keys() >= {first.where, second.where}
        assert from_origin(artifact) < 0.1
        assert max(event.peers for event in third.of(PeersFound)) == 2

    async def test_a_node_without_a_server_asks_its_peers_first_and_then_the_origin(self, nodes: Nodes) -> None:
        complete = await nodes.complete()
        leech = nodes.node(served=False)
        artifact = await leech.fetch()
        assert artifact.bytes_from[complete.where] > 0.7 * TOTAL, "a slow machine lets the fetch compare it with the origin"
        assert leech.of(PeersFound) == [PeersFound(1, 1, passed_on=False)]

    async def test_one_complete_peer_is_enough_once_the_origin_has_listed_the_files(self, nodes: Nodes) -> None:
        complete = await nodes.complete()
        nodes.hub.faults.add(Fault(Reset(), path="/resolve/"))
        assert (await nodes.node().fetch()).bytes_from == {complete.where: TOTAL}

    async def test_a_node_is_recognised_at_an_explicit_identity(self, nodes: Nodes) -> None:
        """Who runs fetch and server in one process need not be among its own peers."""
        node = nodes.node()
        assert node.server is not None
        await nodes.complete()
        await node.fetch(node=node.server.node, mirrors=(nodes.all[-1].where,))
        assert node.of(PeersFound) == [PeersFound(1, 1, passed_on=True)]

    async def test_peers_are_told_by_a_function_too(self, nodes: Nodes) -> None:
        complete = await nodes.complete()
        told: list[Callable[[], list[str]]] = [lambda: [complete.where]]
        artifact = await nodes.node().fetch(mirrors=(), peers=told[0])
        assert artifact.bytes_from[complete.where] > 0.7 * TOTAL

    async def test_the_addresses_of_a_name_are_peers(self, nodes: Nodes) -> None:
        complete = await nodes.complete()
        port = complete.where.rpartition(":")[2]
        assert from_origin(await nodes.node().fetch(mirrors=(f"dns://localhost:{port}",))) < 0.3

    async def test_pins_are_part_of_what_peers_are_asked_for(self, nodes: Nodes) -> None:
        name = next(iter(FILES))
        listed = (await nodes.complete()).where
        pin = {name: Digest("sha256", hashlib.sha256(FILES[name]).hexdigest())}
        pinned = nodes.node()
        await pinned.fetch(expect=pin, mirrors=())
        artifact = await nodes.node().fetch(expect=pin)
        assert artifact.bytes_from.keys() >= {listed, pinned.where}
        assert from_origin(artifact) < 0.1


class TestTrouble:
    async def test_a_liar_is_banned_alone_and_no_wrong_byte_is_published(self, nodes: Nodes) -> None:
        liar, honest, third = await nodes.complete(), await nodes.complete(), nodes.node()
        for path in liar.root.rglob("*.safetensors"):
            with path.open("r+b", buffering=0) as file:
                byte = os.pread(file.fileno(), 1, 5)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), 5)
        artifact = await third.fetch()
        assert {event.mirror for event in third.of(MirrorBanned)} == {liar.where}
        assert {event.supplier for event in third.of(Disputed)} == {liar.where}
        wrong = Counter(event.path for event in third.of(Disputed))
        assert from_origin(artifact) <= sum(len(FILES[path]) for path in wrong) / TOTAL
        assert artifact.bytes_from[honest.where] > 0

    async def test_when_all_peers_are_gone_the_origin_brings_the_rest(self, nodes: Nodes) -> None:
        gone, node = nodes.node(), nodes.node()
        nodes.hub.throttle(total=TOTAL / 4)
        tasks = await nodes.together(gone, node)
        tasks[0].cancel()
        gone.stop()
        nodes.hub.throttle()
        assert from_origin(await tasks[1]) > 0.5
        await asyncio.wait(tasks)

    async def test_peers_that_are_not_there_are_said_once_and_cost_a_moment(self, nodes: Nodes) -> None:
        node = nodes.node(served=False)
        artifact = await node.fetch(mirrors=("http://127.0.0.1:9", "dns://nowhere.invalid:8650"))
        assert from_origin(artifact) == 1
        assert node.of(PeersFound) == [PeersFound(0, 1, passed_on=False)]
        assert len(node.of(MirrorAvoided)) <= 1

    async def test_without_origin_and_without_a_complete_peer_the_fetch_fails_and_says_why(self, nodes: Nodes) -> None:
        other = nodes.node()
        nodes.hub.faults.add(Fault(Reset(), path="/resolve/"))
        with pytest.raises(Unreachable):
            await other.fetch(mirrors=("http://127.0.0.1:9",), retry_for=1.0)


class TestManyFiles:
    async def test_two_thousand_small_files_come_from_a_peer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that are here already come from nowhere."""
        files = {f"{number % 50}/{number}.json": b"%d" % number * 20 for number in range(2000)}
        part = dict(list(files.items())[::4])
        with Origin() as hub, ExitStack() as stack:
            monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
            hub.add_repo("org/model", files)
            hub.add_repo("org/part", part)
            nodes = Nodes(hub, tmp_path, stack, files)
            complete, node = await nodes.complete(), nodes.node(served=False)
            await engine_fetch(ArtifactRef("hf://org/part"), Settings(cache_dir=node.root))
            artifact = await node.fetch()
            missing = sum(map(len, files.values())) - sum(map(len, part.values()))
            assert artifact.bytes_from[complete.where] > 0.9 * missing, "a slow machine compares it with the origin"
            assert sum(artifact.bytes_from.values()) == missing
