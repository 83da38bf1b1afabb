"""One case on a cluster: nodes begin together, something goes wrong midway, and every file is compared at the end."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import Failed
from benchmarks.peers.cluster import CHUNK, Cluster, Node
from benchmarks.peers.watching import Load, Watch

_LOOK = 0.05
_MIDWAY = 0.5
"""When nodes die or links are cut, as a share of the time that one node takes alone."""
_SETTLE = 0.5
"""Seconds after which the origin has logged what was given up."""


@dataclass(frozen=True, slots=True)
class Case:
    """`nodes` fetch at once, and `dies` of them die midway. `whole` more have everything, and `liars` more have everything with
    a wrong byte in each chunk. `unplugged`: the origin is gone as soon as every node knows the listing.
    """

    name: str
    nodes: int
    peers: bool = True
    dies: int = 0
    whole: int = 0
    liars: int = 0
    unplugged: bool = False

    @property
    def machines(self) -> int:
        return self.nodes + self.whole + self.liars


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds until each surviving node was done, bytes that the origin sent, and bytes by supplier of each of them.

    `banned`, `liars`: addresses. `wrong`: what differs from the model.
    """

    case: Case
    seconds: Sequence[float]
    sent: int
    suppliers: Sequence[dict[str, int]]
    banned: frozenset[str]
    liars: frozenset[str]
    wrong: Sequence[str]
    load: Load

    @property
    def last(self) -> float:
        return max(self.seconds)

    @property
    def from_liars(self) -> int:
        """Bytes that survivors took from liars."""
        return sum(each.get(liar, 0) for each in self.suppliers for liar in self.liars)


def run(cluster: Cluster, case: Case, *, alone: float, patience: float) -> Outcome:
    """Play a case. `alone`: the seconds of one node by itself. Raises Failed after `patience` seconds, or if a node fails."""
    cluster.reset()
    taking = list(cluster.nodes[: case.machines])
    fetching, whole, liars = taking[: case.nodes], taking[case.nodes :][: case.whole], taking[case.nodes + case.whole :]
    for node in [*whole, *liars]:
        _fill(cluster, node, spoilt=node in liars)
    if case.peers:
        for node in taking:
            cluster.serve(node)
    mirrors = [node.url for node in taking] if case.peers else []
    before = cluster.origin.sent()
    watch = Watch()
    began = time.monotonic()
    for node in fetching:
        cluster.fetch(node, mirrors)
    try:
        _wait(cluster, case, fetching, watch, began=began, midway=_MIDWAY * alone, patience=patience)
    finally:
        load = watch.ended([node.server for node in taking if node.server is not None])
        if case.unplugged:
            cluster.machine.plug(in_=True)
    time.sleep(_SETTLE)
    alive = [node for node in fetching if not node.killed]
    for node in alive:
        if node.fetch is None or node.fetch.returncode != 0:
            raise Failed(f"{case.name}: {node.url} failed: {node.log.read_text(errors='replace')[-1000:]}")
    return Outcome(
        case=case,
        seconds=[(node.ended or 0.0) - began for node in alive],
        sent=cluster.origin.sent() - before,
        suppliers=[dict(node.result()["bytes_from"]) for node in alive],
        banned=frozenset(url for node in alive for url in node.banned()),
        liars=frozenset(node.url for node in liars),
        wrong=[f"{node.url}: {why}" for node in alive if (why := _differs(cluster, node))],
        load=load,
    )


def _wait(
    cluster: Cluster, case: Case, fetching: Sequence[Node], watch: Watch, *, began: float, midway: float, patience: float
) -> None:
    doomed, plugged = list(fetching[len(fetching) - case.dies :]), case.unplugged
    while running := [node for node in fetching if node.ended is None and not node.killed]:
        now = time.monotonic()
        if now - began > patience:
            raise Failed(f"{case.name}: {len(running)} nodes are not done after {patience:.0f} s")
        if doomed and now - began > midway:
            cluster.kill(doomed.pop())
        if plugged and all(node.knows_the_listing() for node in fetching):
            cluster.machine.plug(in_=False)
            plugged = False
        for node in running:
            if node.fetch is not None and node.fetch.poll() is not None:
                node.ended = time.monotonic()
        watch.look([node.fetch for node in running if node.fetch is not None])
        time.sleep(_LOOK)


def keep(cluster: Cluster, node: Node) -> None:
    """Keep the root of a node, which has everything, for later cases."""
    shutil.copytree(node.root, _kept(cluster), symlinks=True)
    for identity in _kept(cluster).glob(".fetcher/node"):
        identity.unlink()


def _fill(cluster: Cluster, node: Node, *, spoilt: bool) -> None:
    """Give a node everything; if `spoilt`, with a wrong byte in each chunk."""
    shutil.rmtree(node.root)
    shutil.copytree(_kept(cluster), node.root, symlinks=True, copy_function=shutil.copy2 if spoilt else os.link)
    for path in node.root.rglob("*.safetensors") if spoilt else ():
        _spoil(path)


def _spoil(path: Path) -> None:
    """Change a byte of each chunk. The size and the moment of the last change stay, so the server does not notice."""
    path.chmod(0o600)
    moment = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        for start in range(0, path.stat().st_size, CHUNK):
            file.seek(start)
            byte = file.read(1)
            file.seek(start)
            file.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(moment, moment))


def _kept(cluster: Cluster) -> Path:
    return cluster.place / "whole"


def _differs(cluster: Cluster, node: Node) -> str | None:
    return cluster.repository.arrived(Path(str(node.result()["path"])))
