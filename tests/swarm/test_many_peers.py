"""What one node takes that has 64 peers: they bring it the model, and at the same time ask its server for what it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from fetcher.artifact import ORIGIN, ArtifactRef
from tests.lab.memory import most_resident
from tests.lab.waiting import wait_until
from tests.serving.peer import Peer
from tests.swarm.conftest import URI, Nodes

MiB = 1024 * 1024
PEERS = 64
MOST = 256 * MiB
"""Resident bytes of a node's fetch and its server together."""


def test_a_fetch_and_a_server_with_64_peers_take_256_mib_together(nodes: Nodes, tmp_path: Path) -> None:
    secret, node = tmp_path / "secret", nodes.node()
    secret.write_text("only-for-this-test")
    words = [word for address in crowd(nodes, secret) for word in ("--mirror", address)]
    assert node.server is not None
    with askers(node.where) as answers:
        node.begin(*words, "--mirror-secret-file", secret, "--limit-rate", "4M")
        assert node.fetching is not None
        memory = 0
        while node.fetching.poll() is None:
            memory = max(memory, most_resident(node.fetching) + most_resident(node.server))
            time.sleep(0.05)
        wait_until(lambda: all(answers), "each of them was told what there is")
    fetched = node.end()
    print(f"{memory / MiB:.0f} MiB, {len(fetched.bytes_from)} suppliers, {sum(answers)} maps")
    assert fetched.bytes_from.get(ORIGIN, 0) == 0
    assert len(fetched.bytes_from) > PEERS / 4, "many bring it"
    assert memory < MOST


def crowd(nodes: Nodes, secret: Path) -> list[str]:
    """The addresses of 64 peers that have everything. They are one server, which all addresses of loopback lead to."""
    full = nodes.node(served=False)
    full.begin()
    full.end()
    words = ("--listen", "0.0.0.0:0", "--auth-secret-file", secret)
    server = nodes.start("serve", "--cache-dir", full.root, *words, log=full.root.with_suffix(".served"))
    assert server.stdout is not None
    port = server.stdout.readline().strip().rpartition(":")[2]
    return [f"http://127.1.0.{number}:{port}" for number in range(1, PEERS + 1)]


@contextmanager
def askers(where: str) -> Iterator[list[int]]:
    """64 peers that ask the server at `where` for its map, twice a second. Yields how many maps each of them was told."""
    told, over, target = [0] * PEERS, threading.Event(), f"/v1/{ArtifactRef(URI).key}/have"

    def ask(number: int) -> None:
        with Peer(where) as peer:
            while not over.is_set():
                told[number] += peer.get(target).status == 200
                over.wait(0.5)

    with ThreadPoolExecutor(PEERS) as threads:
        asked = [threads.submit(ask, number) for number in range(PEERS)]
        try:
            yield told
        finally:
            over.set()
    for each in asked:
        each.result()
