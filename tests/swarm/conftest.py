"""A Hub that counts bytes, and nodes on loopback: each with a root, a `fetcher serve` of it, and a `fetcher fetch` into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.lab.command import end
from tests.lab.small_chunks import SIZE
from tests.lab.waiting import wait_until

KiB = 1024
CHUNK = 64 * KiB
SMALL_CHUNKS = (sys.executable, "-m", "tests.lab.small_chunks")
FILES = {
    "config.json": b"{}",
    **{f"model-{number:05}.safetensors": random_bytes(f"swarm {number}", 32 * CHUNK + number) for number in range(8)},
}
TOTAL = sum(map(len, FILES.values()))
URI = "hf://org/model"


class Node:
    """One node. `where`: the address of its server."""

    def __init__(self, swarm: Nodes, root: Path, *, served: bool = True) -> None:
        self.swarm = swarm
        self.root = root
        root.mkdir(parents=True)
        self.server: subprocess.Popen[str] | None = None
        self.fetching: subprocess.Popen[str] | None = None
        self.where = ""
        if served:
            self.server = swarm.start("serve", "--cache-dir", root, "--listen", "127.0.0.1:0", log=root.with_suffix(".served"))
            assert self.server.stdout is not None
            self.where = self.server.stdout.readline().strip()

    def begin(self, *options: str | Path) -> None:
        """Start to fetch, with all nodes as peers."""
        mirrors = [word for node in self.swarm.nodes if node.where for word in ("--mirror", node.where)]
        words = ("--cache-dir", self.root, "--json", "--progress", "log", *mirrors, *options)
        self.fetching = self.swarm.start("fetch", URI, *words, log=self._log)

    def end(self) -> Fetched:
        """Wait for the fetch, which must succeed."""
        assert self.fetching is not None
        output, _ = self.fetching.communicate(timeout=100)
        assert self.fetching.returncode == 0, self.log
        result = json.loads(output)
        content = {name: (Path(result["path"]) / name).read_bytes() for name in FILES}
        assert content == FILES, "no wrong byte is published"
        return Fetched(result["bytes_from"], self.log, result["seconds"])

    @property
    def _log(self) -> Path:
        return self.root.with_suffix(".log")

    @property
    def log(self) -> str:
        """What the fetch has said by now."""
        return self._log.read_text()

    def die(self) -> None:
        """Kill the server and the fetch."""
        for process in (self.server, self.fetching):
            if process is not None:
                end(process)


class Fetched:
    """The end of a fetch: bytes by supplier, what was logged, seconds."""

    def __init__(self, bytes_from: dict[str, int], log: str, seconds: float) -> None:
        self.bytes_from = bytes_from
        self.log = log
        self.seconds = seconds


class Nodes:
    """The nodes of one test."""

    def __init__(self, hub: Origin, place: Path, stack: ExitStack) -> None:
        self.hub = hub
        self.environ: dict[str, str] = {}
        self.nodes: list[Node] = []
        self._place = place
        self._stack = stack

    def node(self, *, served: bool = True) -> Node:
        node = Node(self, self._place / f"node-{len(self.nodes)}", served=served)
        self.nodes.append(node)
        return node

    def start(self, *words: str | Path, log: Path) -> subprocess.Popen[str]:
        environ = {**os.environ, "HF_ENDPOINT": self.hub.endpoint, SIZE: str(CHUNK), **self.environ}
        command = [*SMALL_CHUNKS, *map(str, words)]
        with log.open("w") as stream:
            process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=stream, text=True)
        self._stack.callback(end, process)
        return process

    def begin_together(self, *nodes: Node) -> None:
        """Start to fetch on these nodes, none of which gets a byte of the weights before all know of each other."""
        self.hub.faults.add(Fault(Status(503, (("Retry-After", "1"),)), origin="cdn"))
        for node in nodes:
            node.begin()
        wait_until(
            lambda: all(f"found {len(nodes) - 1} of {len(nodes) - 1} peers" in node.log for node in nodes),
            "they know of each other",
            timeout=60,
        )
        self.hub.faults.clear()

    @property
    def sent(self) -> float:
        """What the Hub has sent of the model, as a multiple of it."""
        return sum(_length(request.headers.get("range")) for request in self.hub.requests if request.origin == "cdn") / TOTAL


def _length(text: str | None) -> int:
    if text is None:
        return 0
    first, _, last = text.removeprefix("bytes=").partition("-")
    return int(last) - int(first) + 1


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Origin(lfs_threshold=CHUNK) as hub, ExitStack() as stack:
        hub.add_repo("org/model", FILES)
        yield Nodes(hub, tmp_path, stack)
