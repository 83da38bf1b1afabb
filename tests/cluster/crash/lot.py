"""Two nodes with an agent each, and a controller, against a real API server; models that come, change and go; and what holds
however their processes die."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cluster.client import Api
from cluster.client.endpoints import CLAIMS, DAEMON_SETS, JOBS, LEASES, NODES, SERVICE_ACCOUNTS, VOLUMES
from cluster.client.patience import patiently
from cluster.controller.reading import CONTROLLER, MANAGED_BY
from cluster.resources import NODE_CACHE, NodeCacheStatus
from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.store.journal import read_journals
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import QUICK
from tests.cluster.controller.playing import ARTIFACTS, CACHES, MODELS, Document, Stage, document
from tests.cluster.crash.victims import Victim, ending

MiB = 1024 * 1024
T = TypeVar("T")
Files = dict[str, bytes]

BIG: Files = {
    "config.json": b"{}",
    "big.safetensors": random_bytes("big", 36 * MiB),
    "rest.safetensors": random_bytes("r", MiB),
}
KEPT: Files = {"config.json": b"{ }", "kept.safetensors": random_bytes("kept", 3 * MiB)}
SHARED = random_bytes("shared", 2 * MiB)


def moving(number: int) -> Files:
    """A version of the model that moves. All versions have one file in common; no other file of the lot has its name."""
    weights = random_bytes(f"moving-{number}", MiB)
    return {"config.json": b"%d" % number, "shared.safetensors": SHARED, f"moving-{number}.safetensors": weights}


POOLED = {
    "big": {},
    "kept": {"retain": "Always"},
    "moving": {"refreshPolicy": "OnChange", "refreshInterval": "1s"},
}
"""The models of the pool, and what their ModelCaches say."""
CLAIMED = "filled"
"""The model that lies in a claim, which a Job fills."""


@dataclass(slots=True)
class Machine:
    """A node: its root, its agent, and the origin that only this agent fetches from. `done`: the chunks by SHA-256 of the file
    that are journalled or published here, and which nobody may ask for again."""

    name: str
    root: Path
    origin: Origin
    agent: Victim
    done: dict[str, set[int]] = field(default_factory=dict)

    def bury(self, known: dict[str, bytes]) -> None:
        """Kill the agent, and compare what it fetched with what was there before. `known`: content by name of each file."""
        self.agent.kill()
        for request in self.origin.requests:
            if request.origin == "cdn" and self.origin.signer.allows(request.target):  # not of a process before this one
                digest = request.path.removeprefix("/blob/")
                asked = request.byte_range
                again = {
                    index
                    for index in self.done.get(digest, ())
                    if asked is None or (asked.start <= index * CHUNK_SIZE and asked.stop > index * CHUNK_SIZE)
                }
                assert not again, (request.target, asked, again, self.agent.log.read_text()[-4000:])
        self.origin.clear_requests()
        self.origin.expire_signatures()
        self._note(known)

    def _note(self, known: dict[str, bytes]) -> None:
        digests = {name: sha256(content) for name, content in known.items()}
        for staged in (self.root / ".fetcher" / "staging").glob("*"):
            for name, file in read_journals(staged.glob("journal.*")).files.items():
                if name in digests:
                    self.done.setdefault(digests[name], set()).update(file.chunks)
        for path in self.root.glob("*/*.safetensors"):
            chunks = -(-len(known[path.name]) // CHUNK_SIZE)
            self.done.setdefault(digests[path.name], set()).update(range(chunks))

    def visible(self, key: str) -> Files | None:
        """The bytes of an artifact as one reader sees them, who has opened its directory; None if there is none."""
        while True:
            try:
                directory = os.open(self.root / key, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                return None
            try:
                names = [name for name in os.listdir(directory) if name != ".fetcher"]
                return {name: _read(name, directory) for name in names}
            except FileNotFoundError:  # replaced, and removed meanwhile
                continue
            finally:
                os.close(directory)

    @property
    def leftovers(self) -> list[Path]:
        """Bytes that only a fetch under way may have in the root. Records of one that nobody goes on with stay for a day."""
        staged = (self.root / ".fetcher" / "staging").glob("*/data.*/*")
        return [path for path in staged if path.is_file()]

    @property
    def holds(self) -> set[str]:
        """The keys that are held."""
        return {path.name.partition(".")[0] for path in (self.root / ".fetcher" / "usage").glob("*.hold.*")}


@dataclass(slots=True)
class Lot:
    """The cluster of a test. `versions`: every content that each key has had, the present one last."""

    stage: Stage
    machines: list[Machine]
    controller: Victim
    versions: dict[str, list[Files]] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    moved: int = 0
    damaged: tuple[Machine, str] | None = None
    """What the test has damaged and nobody has repaired yet."""
    admitted: bool = False
    """Whether the agent has said so."""

    @property
    def victims(self) -> list[Victim]:
        return [self.controller, *(each.agent for each in self.machines)]

    async def begin(self) -> None:
        """Make the pool of two nodes, and publish all models."""
        third = await self.stage.api.get(NODES, self.stage.nodes[2])
        await self.stage.api.delete(NODES, self.stage.nodes[2], uid=third["metadata"]["uid"])
        await self.stage.pool(allowRootFilesystem=True, minFree="0", maxFetching=2)
        for name, files in {"big": BIG, "kept": KEPT, "moving": moving(0), CLAIMED: KEPT}.items():
            self.versions[key_of(name)] = [files]
            for each in self.machines:
                each.origin.add_repo(f"org/{name}", files)

    async def _read(self, ask: Callable[[Api], Awaitable[T]]) -> T:
        """Ask the API server as often as it takes: on a busy machine an answer may take too long."""
        return await patiently(lambda: ask(self.stage.api), on_problem=lambda _: None)

    async def declare(self, name: str) -> None:
        spec = POOLED.get(name)
        if spec is not None:
            await self.stage.model(name, f"hf://org/{name}", **spec)
        else:
            wanted = {"source": {"uri": f"hf://org/{name}"}, "placement": {"claimTemplate": {"retention": "Delete"}}}
            await self.stage.api.create(MODELS, {**document(MODELS, name, self.stage.tenant), "spec": wanted})
        self.declared.add(name)

    async def withdraw(self, name: str) -> None:
        found = await self.stage.api.get(MODELS, name, self.stage.tenant)
        await self.stage.api.delete(MODELS, name, self.stage.tenant, uid=found["metadata"]["uid"])
        self.declared.discard(name)

    def move(self) -> None:
        """Publish the next version of the model that moves."""
        self.moved += 1
        files = moving(self.moved)
        self.versions[key_of("moving")].append(files)
        for each in self.machines:
            each.origin.add_repo("org/moving", files)

    def bury(self, victim: Victim) -> None:
        """Kill a process, and compare what it did with what may be done."""
        machine = next((each for each in self.machines if each.agent is victim), None)
        if machine is None:
            victim.kill()
        else:
            known = {name: content for files in self.versions.values() for each in files for name, content in each.items()}
            machine.bury(known)

    def start(self, victim: Victim, *, at: int | None = None, spared: frozenset[str] | None = None) -> None:
        """Start a process. A controller gets a Lease of its own: a killed one is known to be dead, so nobody need wait."""
        more = ("--lease", f"controller-{victim.number + 1}") if victim is self.controller else ()
        victim.start(*more, at=at, spared=spared)

    async def assert_right(self) -> None:
        """The invariant of every moment: what a node shows is a whole version, and what it says is Ready is there."""
        for machine in self.machines:
            said = {key: each.phase for key, each in (await self.status(machine)).artifacts.items()}
            for key, versions in self.versions.items():
                visible, ready = machine.visible(key), said.get(key) == "Ready"
                if self.damaged == (machine, key):
                    self.admitted = self.admitted or said.get(key) == "Damaged"
                    assert visible in versions or not (ready and self.admitted), (machine.name, key, "is known to be damaged")
                else:
                    assert visible in versions if visible is not None else not ready, (machine.name, key)

    async def status(self, machine: Machine) -> NodeCacheStatus:
        found = await self._read(lambda _: self.stage.find(CACHES, machine.name))
        return NODE_CACHE.read(found).status if found is not None else NodeCacheStatus()

    async def converged(self) -> bool:
        """Whether every declared model of the pool has its present version on every node, and every node says so."""
        wanted = sorted(self.declared & POOLED.keys())
        for name in wanted:
            key = key_of(name)
            for machine in self.machines:
                said = (await self.status(machine)).artifacts.get(key)
                if said is None or said.phase != "Ready" or machine.visible(key) != self.versions[key][-1]:
                    return False
            told = await self._read(lambda _, name=name: self.stage.status(name))  # type: ignore[misc]  # its type is known
            if told.get("progress") != f"{len(self.machines)}/{len(self.machines)}":
                return False
        if CLAIMED in self.declared:
            return len(await self.jobs()) == 1
        return True

    async def jobs(self) -> list[Document]:
        return (await self._read(lambda api: api.list(JOBS, self.stage.tenant))).items

    async def left(self) -> list[str]:
        """The objects that the controller made for this pool and its models and that still exist, by kind and name."""
        return await self._read(self._left)

    async def _left(self, api: Api) -> list[str]:
        stage = self.stage
        own = f"{MANAGED_BY}={CONTROLLER}"
        found = [
            *(each for each in (await api.list(ARTIFACTS)).items if each["spec"]["pool"] == stage.name),
            *(each for each in (await api.list(CACHES)).items if each["metadata"]["name"] in stage.nodes),
            *(
                each
                for each in (await api.list(VOLUMES, labels=own)).items
                if each["spec"].get("claimRef", {}).get("namespace") == stage.tenant
            ),
            *(await api.list(CLAIMS, stage.tenant)).items,
            *(await api.list(JOBS, stage.tenant)).items,
            *(await api.list(DAEMON_SETS, stage.name)).items,
            *(await api.list(SERVICE_ACCOUNTS, stage.name, labels=own)).items,
            *(await api.list(LEASES, stage.name, labels="weightlift.dev/agent=true")).items,
        ]
        return [f"{each['kind']} {each['metadata']['name']}" for each in found]


@contextmanager
def lot(stage: Stage, directory: Path, *more: str, kubeconfig: Path | None = None) -> Iterator[Lot]:
    """Provide a lot without any process yet. `more`: words for the agents. `kubeconfig`: another way to the API server."""
    way = str(kubeconfig or stage.kubeconfig)
    with ExitStack() as stack:
        machines = []
        for name in stage.nodes[:2]:
            (place := directory / name).mkdir()
            (root := place / "root").mkdir()
            origin = stack.enter_context(Origin(lfs_threshold=MiB))
            words = [
                *("--node", name, "--root", str(root), "--namespace", stage.name, "--kubeconfig", way),
                *("--hub-endpoint", origin.endpoint, "--allow-loopback", *QUICK, "--orphan-grace", "1s", *more),
                *("--metrics-port", "0", "--metrics-address", "127.0.0.1"),
            ]
            machines.append(Machine(name, root, origin, Victim("agent", words, place)))
        words = [
            *("--kubeconfig", way, "--namespace", stage.name, "--image", "example.com/weightlift:0.1.0"),
            *("--allow-loopback", "--allow-unbound-agents", "--status-interval", "200ms"),
            *("--hub-endpoint", machines[0].origin.endpoint),
        ]
        made = Lot(stage, machines, Victim("controller", words, directory))
        stack.enter_context(ending(*made.victims))
        yield made


def key_of(name: str) -> str:
    return ArtifactRef(f"hf://org/{name}").key


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(name: str, directory: int) -> bytes:
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=directory)) as stream:
        return stream.read()
