"""A whole roll-out in simulated time: the controller's own decisions and writes, the agents' own reports, and an API server
that keeps objects as JSON and counts.

Simulated are the watches, the fetches, which take a given time, and the clock.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cluster.agent.reporting import Reporter, status_of
from cluster.agent.states import Announced, Survey
from cluster.client import Api, Conflict, Endpoint, Missing
from cluster.controller.reading import read_artifact, read_cache, read_owned
from cluster.controller.world import Model, World
from cluster.controller.world import Peering as Known
from cluster.controller.writing import Writer
from cluster.resources import CACHE_ARTIFACT, MODEL_CACHE, NODE_CACHE, Observed, Phase, patched
from cluster.resources.artifact import content_of, name_of
from cluster.resources.model import PoolPlacement
from cluster.resources.pool import Peering
from tests.cluster.controller.building import found, model, planned, pool, world

Document = dict[str, Any]
NAMED = tuple[str, str, str]
_MANAGED = "m" * 800
"""In the place of what the API server adds for who wrote which field. Its size is assumed, not measured."""


@dataclass(slots=True)
class Counted:
    """Writes of one kind of object: their number, the bytes of their bodies, and those of the objects as they are kept then."""

    writes: int = 0
    sent: int = 0
    kept: int = 0


class Server:
    """What the writers of controller and agents ask of an API server."""

    manager = "rolling"

    def __init__(self) -> None:
        self.objects: dict[NAMED, Document] = {}
        self.changed: set[NAMED] = set()
        self.counted: dict[str, Counted] = {}
        self.by_node: dict[str, int] = {}
        self._versions = itertools.count(1)

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> Document:
        if (there := self.objects.get((endpoint.kind, namespace, name))) is None:
            raise Missing(f"{endpoint.kind} {name}", code=404)
        return there

    async def create(self, endpoint: Endpoint, document: Mapping[str, Any]) -> Document:
        metadata = document["metadata"]
        place = (endpoint.kind, metadata.get("namespace", ""), metadata["name"])
        if place in self.objects:
            raise Conflict(f"{place} exists", code=409)
        uid = f"00000000-0000-0000-0000-{next(self._versions):012}"
        of_server = {"uid": uid, "managedFields": _MANAGED, "creationTimestamp": "2026-01-01T00:00:00Z"}
        return self._keep(place, endpoint.kind, document, {**document, "metadata": {**metadata, **of_server}})

    async def apply(
        self, endpoint: Endpoint, document: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Document:
        metadata = document["metadata"]
        place = (endpoint.kind, metadata.get("namespace", ""), metadata["name"])
        if place not in self.objects:
            return await self.create(endpoint, document)
        return self._keep(place, endpoint.kind, document, patched(self.objects[place], document))

    async def merge(
        self, endpoint: Endpoint, name: str, namespace: str, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> Document:
        there = await self.get(endpoint, name, namespace)
        if endpoint.kind == NODE_CACHE.name and patch["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise Conflict(f"{name} was changed", code=409)
        kind = f"{endpoint.kind}/{subresource}" if subresource else endpoint.kind
        if subresource and endpoint.kind == NODE_CACHE.name:
            self.by_node[name] = self.by_node.get(name, 0) + 1
        return self._keep((endpoint.kind, namespace, name), kind, patch, patched(there, patch))

    async def delete(self, endpoint: Endpoint, name: str, namespace: str = "", *, uid: str) -> None:
        place = (endpoint.kind, namespace, name)
        if self.objects[place]["metadata"]["uid"] != uid:
            raise Conflict(f"{name} is another one", code=409)
        del self.objects[place]
        self.changed.add(place)

    def _keep(self, place: NAMED, kind: str, body: Mapping[str, Any], now: Document) -> Document:
        now["metadata"] = {**now["metadata"], "resourceVersion": str(next(self._versions))}
        return self.count(place, kind, body, now)

    def count(self, place: NAMED, kind: str, body: Mapping[str, Any], now: Document) -> Document:
        """Take what an object is now, after a write of `body`."""
        count = self.counted.setdefault(kind, Counted())
        count.writes += 1
        count.sent += len(json.dumps(body))
        count.kept += len(json.dumps(now, separators=(",", ":")))
        self.objects[place] = now
        self.changed.add(place)
        return now


@dataclass(slots=True)
class Agent:
    """A node: one fetch at a time, of what it has a turn for, and a status at most once in its interval."""

    node: str
    reporter: Reporter
    ready: dict[str, str] = field(default_factory=dict)
    fetching: str | None = None
    written: float = -math.inf
    jitter: float = 1.0
    due: float = math.inf
    """When its status is written; infinite if it has nothing to tell."""
    entries: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Content and turn by key."""
    peer: Announced | None = None

    def next(self) -> str | None:
        """The key of what it fetches now."""
        return min(
            (key for key, (content, turn) in self.entries.items() if turn and self.ready.get(key) != content), default=None
        )

    def observed(self) -> dict[str, Observed]:
        return {key: self._seen(key, content, turn=turn) for key, (content, turn) in self.entries.items()}

    def _seen(self, key: str, content: str, *, turn: bool) -> Observed:
        if self.ready.get(key) == content:
            came = (20_000_000_000, 120_000_000_000) if self.peer is not None else (None, None)
            return Observed("Ready", content=content, from_origin=came[0], from_peers=came[1])
        phase: Phase = "Fetching" if key == self.fetching else "Queued"
        return Observed(phase, None if turn else "Turn")


@dataclass(slots=True)
class Outcome:
    """Seconds of simulated time until every copy was reported Ready, and of processor time of the controller."""

    seconds: float
    processor: float
    passes: int
    slowest: float
    most_in_a_minute: float
    """Bytes of objects in the worst minute, per second."""


class Rollout:
    """A cluster of `nodes` (a number, or names) and `models` models, of which nothing is there yet.

    A fetch takes `fetch` seconds. `pace`: the passes are as far apart as in a cluster of so many nodes. `server`: who keeps the
    objects. `tenant`: the namespace of the models. `mark`: the name of the pool, and a part of URIs. `peers`: they are on, and
    each node has a certificate in the pass after the one that sees it ask.
    """

    def __init__(
        self,
        *,
        nodes: int | list[str],
        models: int,
        fetch: float,
        max_fetching: int,
        pace: int | None = None,
        peers: bool = False,
        seed: int = 1,
        server: Server | None = None,
        tenant: str = "tenant",
        mark: str = "p",
    ) -> None:
        self.now = 0.0
        self.tenant = tenant
        self.mark = mark
        self.server = server or Server()
        self._random = random.Random(seed)
        self._fetch = fetch
        self._events: list[tuple[float, int, str, str]] = []
        self._writing: list[asyncio.Task[None]] = []
        self._order = itertools.count()
        wanted = [self._model(f"model-{number:03}") for number in range(models)]
        revisions = {each.metadata.name: f"{number:040x}" for number, each in enumerate(wanted)}
        answers = {
            (tenant, each.metadata.name): found(each, revision=revisions[each.metadata.name], digest="d" * 64)
            for each in wanted
        }
        wanted_pool = pool(mark, max_fetching=max_fetching, peers=Peering("On" if peers else "Off"))
        given = world(wanted, [wanted_pool], nodes=nodes, resolutions=answers, artifacts={})
        self.world = given
        api = cast(Api, self.server)
        self.writer = Writer(
            api, status_interval=5.0, on_note=lambda *_: None, on_problem=self._problem, clock=lambda: self.now
        )
        self.agents = {node: Agent(node, Reporter(api, interval=10.0, on_problem=self._problem)) for node in given.nodes}
        if peers:
            for number, each in enumerate(self.agents.values()):
                each.peer = Announced(f"https://10.0.{number // 250}.{number % 250 + 1}:8650", "k" * 124)
        self._pass = max(1.0, (pace or len(given.nodes)) / 100)

    def _model(self, name: str) -> Model:
        return model(name, self.tenant, uri=f"hf://organisation-{self.mark}/{name}", place=PoolPlacement(self.mark))

    def add(self, name: str) -> str:
        """Add one more model whose source has answered, and return its key."""
        more = self._model(name)
        answer = found(more, revision="f" * 40, digest="d" * 64)
        self.world = World(
            **{
                **{each: getattr(self.world, each) for each in World.__slots__},
                "models": {**self.world.models, (self.tenant, name): more},
                "resolutions": {**self.world.resolutions, (self.tenant, name): answer},
            }
        )
        assert answer.found is not None
        return answer.found.key

    async def run(self) -> Outcome:
        """Run until every node has reported every model Ready."""
        processor = slowest = worst = 0.0
        passes, minutes = 0, dict[int, int]()
        self._at(0.0, "pass", "")
        while not self.is_complete:
            self.now, _, kind, node = heapq.heappop(self._events)
            before = sum(each.kept for each in self.server.counted.values())
            if kind == "pass":
                await self._settle()
                began = time.process_time()
                await self.decide()
                took = time.process_time() - began
                processor, slowest, passes = processor + took, max(slowest, took), passes + 1
                self._at(self.now + self._pass, "pass", "")
                self._deliver()
            elif kind == "fetched":
                self._fetched(self.agents[node])
            else:
                self._report(self.agents[node])
                await asyncio.sleep(0)  # what it writes is what it knows now
            minute = int(self.now // 60)
            minutes[minute] = minutes.get(minute, 0) + sum(each.kept for each in self.server.counted.values()) - before
        worst = max(minutes.values()) / 60
        return Outcome(self.now, processor, passes, slowest, worst)

    @property
    def is_complete(self) -> bool:
        """Whether the controller has told that every copy is Ready."""
        every = f"{len(self.world.nodes)}/{len(self.world.nodes)}"
        return all(each.status.progress == every for each in self.world.models.values())

    async def decide(self) -> None:
        """One pass of the controller: take what has changed as its watches do, decide, write."""
        self._observe()
        asking = {node: "c" * 610 for node, cache in self.world.caches.items() if cache.peer_key}
        if asking:
            self.world = replace(self.world, peering=Known("a" * 580, asking))
        decided = planned(self.world)
        await self.writer.write(decided, self.world)

    def named(self, key: str) -> int:
        """How many NodeCaches have an entry of `key`."""
        caches = (each for place, each in self.server.objects.items() if place[0] == NODE_CACHE.name)
        return sum(key in each["spec"].get("artifacts", {}) for each in caches)

    def _observe(self) -> None:
        found: dict[str, dict[Any, Any]] = {
            "caches": dict(self.world.caches), "artifacts": dict(self.world.artifacts), "models": dict(self.world.models),
            "volumes": dict(self.world.volumes), "claims": dict(self.world.claims), "daemon_sets": dict(self.world.daemon_sets),
            "pools": dict(self.world.pools),
        }  # fmt: skip
        for kind, namespace, name in self.server.changed:
            document = self.server.objects.get((kind, namespace, name))
            if document is None:
                del found["artifacts"][name]
                continue
            text = json.loads(json.dumps(document))
            if kind == NODE_CACHE.name:
                found["caches"][name] = read_cache(text)
            elif kind == CACHE_ARTIFACT.name:
                found["artifacts"][name] = read_artifact(text)
            elif kind == MODEL_CACHE.name:
                before = self.world.models[namespace, name]
                status = MODEL_CACHE.read({**text, "spec": _SOME}).status
                found["models"][namespace, name] = type(before)(before.metadata, before.spec, status)
            elif kind in _OWNED:
                place = (namespace, name) if kind == "PersistentVolumeClaim" else name
                found[_OWNED[kind]][place] = read_owned(text)
        self._changed_nodes = {name for kind, _, name in self.server.changed if kind == NODE_CACHE.name}
        self.server.changed.clear()
        self.world = World(**{**{each: getattr(self.world, each) for each in World.__slots__}, **found})

    def _deliver(self) -> None:
        """Let each agent see what was written for it."""
        for kind, _, name in self.server.changed:
            if kind == NODE_CACHE.name:
                self._see(self.agents[name])

    def _see(self, agent: Agent) -> None:
        document = self.server.objects[NODE_CACHE.name, "", agent.node]
        agent.reporter.see(NODE_CACHE.read(document))
        agent.entries = {
            key: (self._content(key, entry["mark"]), bool(entry.get("turn")))
            for key, entry in document["spec"].get("artifacts", {}).items()
        }
        self._begin(agent)
        self._report_soon(agent)

    def _content(self, key: str, mark: str) -> str:
        spec = self.server.objects[CACHE_ARTIFACT.name, "", name_of(key, mark)]["spec"]
        return content_of(spec.get("revision"), spec["listingDigest"])

    def _begin(self, agent: Agent) -> None:
        if agent.fetching is None and (key := agent.next()) is not None:
            agent.fetching = key
            self._at(self.now + self._fetch * self._random.uniform(0.8, 1.2), "fetched", agent.node)

    def _fetched(self, agent: Agent) -> None:
        assert agent.fetching is not None
        agent.ready[agent.fetching] = agent.entries[agent.fetching][0]
        agent.fetching = None
        self._begin(agent)
        self._report_soon(agent)

    def _report_soon(self, agent: Agent) -> None:
        survey = Survey(used=len(agent.ready) * 14_000_000_000, capacity=7_000_000_000_000)
        agent.reporter.offer(status_of(agent.observed(), survey, 1, agent.peer), busy=agent.fetching is not None)
        self._report_at(agent, self._rested(agent))

    def _rested(self, agent: Agent) -> float:
        return max(self.now, agent.written + agent.reporter.pause * agent.jitter)

    def _report_at(self, agent: Agent, moment: float) -> None:
        if moment < agent.due:
            agent.due = moment
            self._at(moment, "report", agent.node)

    def _report(self, agent: Agent) -> None:
        if self.now != agent.due:
            return  # it was told earlier
        agent.due = math.inf
        if (moment := self._rested(agent)) > self.now:  # it has begun to fetch since
            self._report_at(agent, moment)
            return
        agent.written, agent.jitter = self.now, self._random.uniform(0.9, 1.3)
        self._writing.append(asyncio.ensure_future(self._flush(agent)))

    async def _flush(self, agent: Agent) -> None:
        assert await agent.reporter.flush()

    async def _settle(self) -> None:
        """Wait for what agents write, which they do beside each other."""
        await asyncio.gather(*self._writing)
        self._writing.clear()

    def _at(self, moment: float, kind: str, node: str) -> None:
        heapq.heappush(self._events, (moment, next(self._order), kind, node))

    def _problem(self, error: Exception) -> None:
        raise error


_SOME = {"source": {"uri": "hf://a/b"}, "placement": {"pools": [{"name": "p"}]}}
_OWNED = {"PersistentVolume": "volumes", "PersistentVolumeClaim": "claims", "DaemonSet": "daemon_sets"}
