"""A cluster of this machine's namespaces: an origin with a link of its own, and nodes that serve their roots and fetch."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fetching.server import Server, serving
from benchmarks.namespaces import Machine, machines
from benchmarks.publishing import Repository
from tests.lab.cgroups import in_group, made_cgroup

CHUNK = 1024 * 1024
"""Bytes of a chunk here, a sixteenth of the real ones: 256 MiB are 256 chunks, as a model of 4 GiB is."""
PORT = 8650
_SECRET = "only-for-this-benchmark"  # noqa: S105 - it guards random bytes
_WEIGHT = 2**18
"""The weight of the cluster's processes together, of the kernel's 2 to 2**18, against 1024 of any other group: what else the
machine has to do shall not slow them down."""


@dataclass(slots=True)
class Node:
    """A machine with a root of its own."""

    machine: Machine
    root: Path
    log: Path
    server: subprocess.Popen[bytes] | None = None
    fetch: subprocess.Popen[bytes] | None = None
    ended: float | None = None
    killed: bool = False

    @property
    def url(self) -> str:
        return f"http://{self.machine.address}:{PORT}"

    def knows_the_listing(self) -> bool:
        """Whether a fetch has said what the origin lists. It stages before: a staging directory is its lease."""
        return self.log.exists() and re.search(r": \d+ files?, ", self.log.read_text(errors="replace")) is not None

    def result(self) -> Mapping[str, Any]:
        """What the fetch printed; empty if it did not end well."""
        try:
            found: dict[str, Any] = json.loads(self.log.with_suffix(".json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def banned(self) -> set[str]:
        """The peers that the fetch has banned."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return {line.partition("MirrorBanned: ")[2].split()[0] for line in lines if "MirrorBanned: " in line}


@dataclass(slots=True)
class Cluster:
    """`origin` is on `machine`. `first`: words that begin every command, and give it processors before others."""

    origin: Server
    machine: Machine
    nodes: Sequence[Node]
    place: Path
    first: Sequence[str]
    _processes: ExitStack = field(default_factory=ExitStack)

    @property
    def repository(self) -> Repository:
        return self.origin.repository

    def serve(self, node: Node) -> None:
        """Serve the root of a node. Returns once the server listens. Raises RuntimeError."""
        words = ["serve", "--cache-dir", str(node.root), "--listen", f"{node.machine.address}:{PORT}"]
        words += ["--auth-secret-file", str(self._secret()), "--drain-for", "1s"]
        with node.log.with_suffix(".serve").open("wb") as log:
            node.server = self._start(node, words, subprocess.PIPE, log)
        if node.server.stdout is None or not node.server.stdout.readline():
            raise RuntimeError(f"a server did not start: {node.log.with_suffix('.serve').read_text()[-500:]}")

    def fetch(self, node: Node, mirrors: Sequence[str], *more: str) -> None:
        """Begin to fetch the model into the root of a node."""
        words = ["fetch", f"hf://{self.repository.name}", "--cache-dir", str(node.root), "--json", "--progress", "log", *more]
        words += [word for mirror in mirrors for word in ("--mirror", mirror)]
        words += ["--mirror-secret-file", str(self._secret())] if mirrors else []
        with node.log.with_suffix(".json").open("wb") as out, node.log.open("wb") as log:
            node.fetch = self._start(node, words, out, log)

    def kill(self, node: Node) -> None:
        """Let a node die, with everything that runs on it."""
        node.killed = True
        for process in (node.fetch, node.server):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self, node: Node) -> None:
        """End the server of a node."""
        if node.server is not None:
            _end(node.server)

    def end(self) -> None:
        """End every process of the cluster but the origin."""
        self._processes.close()

    def reset(self) -> None:
        """End everything, and forget what nodes have."""
        self.end()
        for node in self.nodes:
            shutil.rmtree(node.root)
            node.root.mkdir()
            for each in self.place.glob(f"{node.log.stem}.*"):
                each.unlink()
            node.server, node.fetch, node.ended, node.killed = None, None, None, False

    def _start(self, node: Node, words: Sequence[str], out: Any, log: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "HF_ENDPOINT": self.origin.hub, "WEIGHTLIFT_TEST_CHUNK": str(CHUNK)}
        command = [*self.first, *node.machine.words, sys.executable, "-m", "tests.lab.small_chunks", *words]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True
        )
        self._processes.callback(_end, process)
        return process

    def _secret(self) -> Path:
        path = self.place / "secret"
        if not path.exists():
            path.write_text(_SECRET + "\n")
        return path


@contextmanager
def cluster(place: Path, repository: Repository, *, nodes: int, origin: int, link: int) -> Iterator[Cluster]:
    """Make a cluster until the block ends. `origin`, `link`: bytes a second of the origin's link and of each node's."""
    weight = {"v1": {"cpu.shares": f"{_WEIGHT}"}, "v2": {"cpu.weight": "10000"}}
    with made_cgroup("cpu", **weight) as group, machines([origin, *[link] * nodes]) as (first, *others):
        made = [_node(place, machine, number) for number, machine in enumerate(others)]
        within = [*in_group(group), *first.words]
        with serving(repository, place / "origin", host=first.address, within=within) as server:
            found = Cluster(server, first, made, place, in_group(group))
            try:
                yield found
            finally:
                found.end()


def _node(place: Path, machine: Machine, number: int) -> Node:
    root = place / f"root-{number}"
    root.mkdir()
    return Node(machine, root, place / f"node-{number}.log")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
