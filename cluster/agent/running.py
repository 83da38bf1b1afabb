"""The agent at work: one loop that looks, decides and acts, and beside it the watch, the sign of life, status and scrub."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.agent import remembering
from cluster.agent.counting import Counts
from cluster.agent.deciding import Plan, plan
from cluster.agent.fetching import Means, fetch, repair
from cluster.agent.intent import Account, Intent, described, intent_of, versions_of
from cluster.agent.liveness import stay_alive
from cluster.agent.reporting import NODES, Reporter, status_of
from cluster.agent.root import examine, limit, limits_of
from cluster.agent.scrubbing import Damage, Schedule, scrub
from cluster.agent.states import HOLDER, Job, Memory, Problem, Survey
from cluster.agent.surveying import Surveyor
from cluster.client import Api, ApiError, Watched
from cluster.client.errors import Missing
from cluster.resources import NODE_CACHE, NodeCacheSpec, NodeCacheStatus, Resource, Wanted
from fetcher import cache
from fetcher.artifact import redact
from fetcher.errors import ConfigurationError, FetchError
from fetcher.events import Event, Evicted, Noted, Subscriber, Warned
from fetcher.uncancelled import run_uncancelled

NodeCache = Resource[NodeCacheSpec, NodeCacheStatus]
Rendered = Callable[[], AbstractContextManager[Subscriber]]


@dataclass(frozen=True, slots=True)
class Config:
    """How this agent runs. Times in seconds, rates in bytes per second.

    `service_account`: None for the one that the controller makes for the pool's agents.
    """

    node: str
    namespace: str
    service_account: str | None
    means: Means
    allow_loopback: bool
    status_interval: float
    survey_interval: float
    recheck_interval: float
    scrub_interval: float
    scrub_rate: float | None
    orphan_grace: float

    @property
    def root(self) -> Path:
        return self.means.root


class Agent:
    """One node's agent. `on_event` gets what it decides, `rendered` makes a subscriber for the events of one fetch."""

    def __init__(self, api: Api, config: Config, on_event: Subscriber, rendered: Rendered) -> None:
        self._api = api
        self._config = config
        self._on_event = on_event
        self._rendered = rendered
        self.counts = Counts()
        self._changed = asyncio.Event()
        self._watched: Watched[NodeCache] = Watched(
            api,
            NODES,
            NODE_CACHE.read,
            on_change=self._changed.set,
            on_problem=self._problem,
            fields=f"metadata.name={config.node}",
        )
        self._reporter = Reporter(api, config.node, interval=config.status_interval, on_problem=self._problem)
        self._surveyor = Surveyor(config.root)
        self._schedule = Schedule(config.scrub_interval)
        self._memory = Memory()
        self._survey = Survey()
        self._surveyed_at = float("-inf")
        self._surveyed = False
        self._limits: cache.CacheLimits | None = None
        self._node: NodeCache | None = None
        self._seen = False
        self._job: Job | None = None
        self._decided: Plan | None = None
        self._assigned = asyncio.Event()
        self._doing: asyncio.Task[None] | None = None
        self._damages: dict[str, Damage] = {}
        self._collected_at = time.monotonic()
        self._looked_at = 0.0
        self._said: dict[str, str] = {}

    @property
    def ready(self) -> str | None:
        """None if the NodeCache was seen and the root can be used, else what is missing, in words without any name."""
        if not self._seen or not self._surveyed:
            return "the NodeCache was not seen yet"
        problem = self._survey.problem
        return problem.reason if problem is not None else None

    @property
    def _account(self) -> Account:
        pool = self._node.spec.pool if self._node is not None else ""
        by_pool = f"weightlift-agent-{pool}"[:63].rstrip("-.")
        return Account(self._config.namespace, self._config.service_account or by_pool)

    def scrub_now(self) -> None:
        """Make a scrub of everything due."""
        self._schedule.hasten()
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`. The fetch under way stays resumable, and the status is written once more."""
        beside = (
            self._watched.run(),
            self._reporter.run(),
            self._working(),
            self._scrubbing(),
            self._rechecking(),
            self._alive(),
        )
        tasks = [asyncio.ensure_future(each) for each in (self._looping(), *beside)]
        stopping = asyncio.ensure_future(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for each in done - {stopping}:
                each.result()  # a bug in one part ends all, visibly
        finally:
            await self._end([stopping, *tasks])

    async def _end(self, tasks: list[asyncio.Future[Any]]) -> None:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)
        self._report(self._plan())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reporter.flush(), _LAST_WRITE)

    async def _alive(self) -> None:
        await stay_alive(self._api, self._config.node, self._config.namespace, on_problem=self._problem)

    # Looking

    async def _looping(self) -> None:
        await self._watched.synced.wait()
        while True:
            self._changed.clear()
            self._look()
            await self._prepare()
            decided = self._plan()
            await self._keep(decided)
            await self._remove(decided)
            self._work(decided)
            self._report(self._plan())
            await self._wait(decided)

    def _look(self) -> None:
        """Take the NodeCache as the watch has it. A missing one changes nothing."""
        node, before = self._watched.objects.get(("", self._config.node)), self._node
        self._node = node
        if node is None or node is before:
            return
        now = time.monotonic()
        if node.metadata.uid != self._memory.uid:
            self._memory = remembering.adopted(self._memory, node.status.artifacts)
            self._reporter.begin(node.status)
        if before is None or _limits(node) != _limits(before):
            self._memory = remembering.resized(self._memory)
            self._survey_soon()
        self._seen = True
        self._memory = remembering.looked(self._memory, node.metadata.uid, (each.key for each in node.spec.artifacts), now)
        self._looked_at = now

    async def _look_again(self) -> None:
        """Look once more at the API server itself: a watch that is silent has not confirmed that an entry is gone."""
        pending = [since for key, since in self._memory.gone.items() if key not in self._memory.unwanted]
        now = time.monotonic()
        if not pending or now - min(pending) < remembering.APART or now - self._looked_at < remembering.APART / 2:
            return
        try:
            node = NODE_CACHE.read(await self._api.get(NODES, self._config.node))
        except Missing:
            return
        except ApiError as error:
            self._problem(error)
            return
        except ValueError:
            return
        self._looked_at = time.monotonic()
        keys = (each.key for each in node.spec.artifacts)
        self._memory = remembering.looked(self._memory, node.metadata.uid, keys, self._looked_at)

    async def _prepare(self) -> None:
        """Examine and survey the root when it is due."""
        await self._look_again()
        while self._node is not None and time.monotonic() - self._surveyed_at >= self._config.survey_interval:
            began = self._surveyed_at = time.monotonic()
            survey = await run_uncancelled(self._examined, self._node.spec)
            if self._surveyed_at == began:  # else a job ended meanwhile, whose work this survey may have missed
                self._take(survey)
        now = time.monotonic()
        if self._survey.problem is None and self._job is None and now - self._collected_at >= _COLLECT_EVERY:
            self._collected_at = now
            collect = partial(cache.gc, self._config.root, unused_for=cache.RESUMABLE, pods=None, dry_run=False)
            await self._tried("garbage", collect)

    def _take(self, survey: Survey) -> None:
        self._surveyed = True
        self.counts.surveys += 1
        self._survey = self.counts.survey = survey
        if survey.problem is None:
            self._memory = remembering.surveyed(self._memory, survey.lying)
        self._say("root", survey.problem)

    def _examined(self, spec: NodeCacheSpec) -> Survey:
        ground = examine(self._config.root, allow_root_filesystem=spec.allow_root_filesystem)
        if isinstance(ground, Problem):
            self._limits = None
            return Survey(problem=ground)
        try:
            limits = limits_of(spec, ground, self._config.means.min_idle)
        except ConfigurationError as error:
            return Survey(problem=Problem(error.reason, error.message))
        if limits != self._limits:
            if (problem := limit(self._config.root, limits)) is not None:
                return Survey(problem=problem)
            self._limits = limits
        return self._surveyor.survey(limits)

    # Deciding

    def _plan(self) -> Plan:
        return plan(
            self._node.spec.artifacts if self._node is not None else None,
            self._survey,
            self._memory,
            self._job,
            now=time.monotonic(),
            grace=self._config.orphan_grace,
        )

    def _report(self, decided: Plan) -> None:
        self.counts.observed = decided.observed
        self.counts.written_at, self.counts.status_writes = self._reporter.written_at, self._reporter.writes
        if self._node is None or not self._surveyed:
            return
        status = status_of(decided.observed, self._survey, None, self._node.metadata.generation)
        self._reporter.offer(status, busy=self._job is not None)

    async def _wait(self, decided: Plan) -> None:
        now = time.monotonic()
        due = [self._surveyed_at + self._config.survey_interval, *([decided.wake] if decided.wake is not None else [])]
        wait = max(0.05, min(due) - now) if self._node is not None else None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), wait)

    # Acting

    async def _keep(self, decided: Plan) -> None:
        """Write and remove holds, so that no fetch of a pod evicts what the cluster wants to stay."""
        root = self._config.root
        lying = dict(self._survey.lying)
        for key in decided.hold:
            if await self._tried(key, partial(cache.hold, root, key, holder=HOLDER, seconds=None)):
                lying[key] = replace(lying[key], ours=True)
        for key in decided.release:
            if await self._tried(key, partial(cache.release, root, key, holder=HOLDER)):
                lying[key] = replace(lying[key], ours=False)
        self._survey = replace(self._survey, lying=lying)

    async def _remove(self, decided: Plan) -> None:
        for key in decided.remove:
            if await self._tried(key, partial(cache.remove, self._config.root, [key], force=False, dry_run=False)):
                self._note(key, "removed: no entry wants it any more")
                self._survey_soon()

    async def _tried(self, key: str, act: Callable[[], object]) -> bool:
        try:
            await run_uncancelled(act)
        except FetchError as error:
            self._say(key, Problem(error.reason, error.message))
            return False
        return True

    def _work(self, decided: Plan) -> None:
        if decided.stop and self._doing is not None:
            self._doing.cancel()
        if decided.job is not None and self._job is None:
            self._job, self._decided = decided.job, decided
            self._assigned.set()

    async def _working(self) -> None:
        """Do one job after the other. Its end is a change, whatever it is."""
        while True:
            await self._assigned.wait()
            self._assigned.clear()
            if self._job is None or self._decided is None:
                continue
            self._doing = asyncio.ensure_future(self._do(self._job, self._decided.ranks))
            try:
                await asyncio.wait([self._doing])
            finally:
                self._doing.cancel()
                await asyncio.wait([self._doing])
                key, self._job = self._job.wanted.key, None
                self._survey_soon()
            if self._doing.cancelled():
                self._note(key, "stopped, because it is not wanted any more; what was fetched stays resumable")
            else:
                self._doing.result()  # a bug ends the agent, visibly

    async def _do(self, job: Job, ranks: Mapping[str, int]) -> None:
        wanted, versions = job.wanted, tuple[str, ...]()
        try:
            known = await described(self._api, wanted, self._account)
            versions = known.versions
            allowed = self._node.spec.allowed_sources if self._node is not None else ()
            intent = intent_of(wanted, known, allowed, allow_loopback=self._config.allow_loopback)
            with self._rendered() as on_event:
                work = self._repair if job.kind == "repair" else self._fetch
                await work(wanted, intent, ranks, partial(self._heard, on_event))
        except FetchError as error:
            chance, now = random.random(), time.monotonic()  # noqa: S311 - spreads load, protects nothing
            versions = versions or (error.reason,)
            self._memory = remembering.failed(self._memory, wanted, error, versions, now=now, jitter=chance)
            self._note(wanted.key, error.sentence())

    async def _fetch(self, wanted: Wanted, intent: Intent, ranks: Mapping[str, int], on_event: Subscriber) -> None:
        lying = self._survey.lying.get(wanted.key)
        lies = lying is not None and lying.revision == wanted.revision
        self._note(
            wanted.key, f"fetching {wanted.bytes} bytes of {redact(intent.ref.uri)} for {wanted.namespace}/{wanted.model}"
        )
        cached = await fetch(wanted, intent, self._config.means, ranks, on_event, lies=lies)
        self._memory = remembering.completed(self._memory, wanted, cached=cached)
        self._schedule.read(wanted.key, now=time.monotonic())
        self._note(wanted.key, "complete already" if cached else "fetched and verified")

    async def _repair(self, wanted: Wanted, intent: Intent, ranks: Mapping[str, int], on_event: Subscriber) -> None:
        damage = self._damages[wanted.key]
        fetched = await repair(wanted, intent, self._config.means, ranks, on_event, damage)
        self._memory = remembering.completed(self._memory, wanted, cached=True)
        self.counts.repaired += 1
        self._note(wanted.key, f"repaired; {fetched} bytes were fetched")

    def _heard(self, on_event: Subscriber, event: Event) -> None:
        self.counts(event)
        if isinstance(event, Evicted):
            self._memory = remembering.evicted(self._memory, event.key)
            self._survey_soon()
        on_event(event)

    # Beside the loop

    async def _rechecking(self) -> None:
        """Try again at once what failed, when its ModelCache or its Secret has changed."""
        while True:
            await asyncio.sleep(self._config.recheck_interval * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            for key, attempt in list(self._memory.attempts.items()):
                try:
                    versions = await versions_of(self._api, attempt.wanted, self._account)
                except ApiError:
                    continue
                if versions != attempt.versions and self._memory.attempts.get(key) is attempt:
                    self._memory = remembering.retried(self._memory, key)
                    self._changed.set()

    async def _scrubbing(self) -> None:
        while True:
            ready = [each.key for each in self.counts.observed if each.phase == "Ready"]
            key = self._schedule.due(ready, now=time.monotonic(), chance=random.random)
            if key is None:
                await asyncio.sleep(min(1.0, self._config.scrub_interval))
                continue
            damage = await scrub(self._config.root, key, max_rate=self._config.scrub_rate, count=self._scrubbed)
            self._schedule.read(key, now=time.monotonic())
            if damage is not None:
                self._damages[key] = damage
                self._memory = remembering.damaged(self._memory, key, damage.shown)
                self._note(key, f"damaged: {damage.shown}")
                self._changed.set()

    def _scrubbed(self, count: int) -> None:
        self.counts.scrubbed += count

    # Telling

    def _survey_soon(self) -> None:
        self._surveyed_at = float("-inf")
        self._changed.set()

    def _note(self, key: str, message: str) -> None:
        self._on_event(Noted(key, message))

    def _say(self, subject: str, problem: Problem | None) -> None:
        """Tell a problem once, until it changes."""
        text = f"{problem.reason}: {problem.message}" if problem is not None else ""
        if self._said.get(subject, "") != text:
            self._said[subject] = text
            if problem is not None:
                self._on_event(Warned(problem.reason, problem.message))

    def _problem(self, error: ApiError) -> None:
        self._say("API server", Problem(error.reason, error.message))


_COLLECT_EVERY = 3600.0
"""Seconds. What killed processes left behind becomes garbage after a day."""
_LAST_WRITE = 5.0
"""Seconds for the last status of a process that is ending: the kubelet kills it after thirty."""


def _limits(node: NodeCache) -> tuple[str | None, str | None, bool]:
    return node.spec.limit, node.spec.min_free, node.spec.allow_root_filesystem
