"""The agent at work: one loop that looks, decides and acts, and beside it watch, jobs, scrub, status and sign of life."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from cluster.agent import remembering
from cluster.agent.config import Config
from cluster.agent.counting import Counts
from cluster.agent.deciding import Plan
from cluster.agent.intent import versions_of
from cluster.agent.keeping import Keeper
from cluster.agent.knowing import Knowledge
from cluster.agent.liveness import stay_alive
from cluster.agent.notices import Notices
from cluster.agent.peering import Peering
from cluster.agent.reporting import NODES, NodeCache, Reporter, status_of
from cluster.agent.scrubbing import Schedule, scrub
from cluster.agent.states import HOLDER, Problem
from cluster.agent.working import Rendered, Worker
from cluster.client import Api, ApiError, Watched
from cluster.resources import COPIES, NODE_CACHE
from cluster.together import is_set_within
from fetcher import cache
from fetcher.errors import FetchError
from fetcher.events import Subscriber
from fetcher.uncancelled import run_uncancelled
from fetcher.usage import renew

_COLLECT_EVERY = 3600.0
"""Seconds. What killed processes left behind becomes garbage after a day, and at once a version that was replaced as its agent
was killed: nobody fetches that key again, so the first collection is at the start."""
_LAST_WRITE = 5.0
"""Seconds for the last status of a process that is ending: the kubelet kills it after thirty."""
_SCRUB_LOOKS = 1.0
"""Seconds between two looks whether a scrub is due."""


class Agent:
    """One node's agent. `on_event` gets what it decides, `rendered` makes a subscriber for the events of one fetch."""

    def __init__(self, api: Api, config: Config, on_event: Subscriber, rendered: Rendered) -> None:
        self._api = api
        self._config = config
        self._notices = Notices(on_event)
        self._known = Knowledge(api, config, self._notices)
        self._schedule = Schedule(config.scrub_interval)
        self._collected_at = float("-inf")
        self.counts = Counts()
        self._peering = Peering(api, config, notices=self._notices, on_change=self._known.changed.set)
        self.counts.serving = self._peering.metrics
        self._worker = Worker(
            api,
            config,
            self._known,
            counts=self.counts,
            notices=self._notices,
            schedule=self._schedule,
            rendered=rendered,
            peering=self._peering,
        )
        self._keeper = Keeper(
            config.root, interval=config.warm_interval, notices=self._notices, on_change=self._known.changed.set
        )
        self._reporter = Reporter(api, interval=config.status_interval, on_problem=self._notices.api)
        self._watched: Watched[NodeCache] = Watched(
            api,
            NODES,
            NODE_CACHE.read,
            on_change=self._known.changed.set,
            on_problem=self._notices.api,
            fields=f"metadata.name={config.node}",
        )

    @property
    def missing(self) -> str | None:
        """None if the NodeCache was seen and the root can be used, else what is missing, in words without any name."""
        if not self._known.surveys:
            return "the NodeCache was not seen yet"
        problem = self._known.survey.problem
        return problem.reason if problem is not None else None

    def scrub_now(self) -> None:
        """Make a scrub of everything due."""
        self._schedule.hasten()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`. The fetch under way stays resumable, and the status is written once more."""
        works = (
            self._looping(),
            self._watched.run(),
            self._known.catalogue.run(),
            self._worker.run(),
            self._keeper.run(),
            self._peering.run(),
            self._reporter.run(),
            self._scrubbing(),
            self._rechecking(),
            stay_alive(self._api, self._config.node, self._config.namespace, on_problem=self._notices.api),
        )
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(each) for each in (stop.wait(), *works)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # a bug in one part ends all, visibly
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
        self._report(self._plan())
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WRITE):
                await self._reporter.flush()

    async def _looping(self) -> None:
        await self._watched.synced.wait()
        while True:
            self._known.changed.clear()
            self._look()
            await self._record_uses()
            await self._known.confirm()
            await self._known.survey_if_due()
            decided = self._plan()
            self._keeper.keep(decided.warm)
            await self._keep(decided)
            await self._remove(decided)
            self._worker.assign(decided)
            self._report(self._plan())
            await self._wait(decided)

    def _look(self) -> None:
        node = self._watched.objects.get(("", self._config.node))
        self._known.look(node)
        if node is not None:
            self._reporter.see(node)
            self._peering.look(node.spec)

    def _plan(self) -> Plan:
        return self._known.plan(self._worker.job, self._keeper.warmth)

    def _report(self, decided: Plan) -> None:
        known, counts = self._known, self.counts
        counts.observed, counts.survey, counts.surveys = decided.observed, known.survey, known.surveys
        counts.room, counts.warmth, counts.reread = known.room, self._keeper.warmth, self._keeper.reread
        counts.written_at, counts.status_writes = self._reporter.written_at, self._reporter.writes
        if known.node is not None and known.surveys and known.catalogue.is_read:
            status = status_of(decided.observed, known.survey, known.node.metadata.generation, self._peering.announced)
            self._reporter.offer(status, busy=self._worker.job is not None)

    async def _wait(self, decided: Plan) -> None:
        due = min(self._known.survey_due, decided.wake if decided.wake is not None else float("inf"))
        wait = max(0.05, due - time.monotonic()) if self._known.node is not None else None
        await is_set_within(self._known.changed, wait)

    async def _record_uses(self) -> None:
        """Record that pods used models until now, or from now on."""
        used, self._known.used = self._known.used, frozenset()
        for key in used:
            await run_uncancelled(partial(renew, self._config.root, key))

    async def _keep(self, decided: Plan) -> None:
        """Write and remove holds, so that no fetch of a pod evicts what the cluster wants to stay."""
        root, lying = self._config.root, dict(self._known.survey.lying)
        for key in decided.hold:
            if await self._tried(key, "held", partial(cache.hold, root, key, holder=HOLDER, seconds=None)):
                lying[key] = replace(lying[key], ours=True)
        for key in decided.release:
            if await self._tried(key, "released", partial(cache.release, root, key, holder=HOLDER)):
                lying[key] = replace(lying[key], ours=False)
        self._known.survey = replace(self._known.survey, lying=lying)

    async def _remove(self, decided: Plan) -> None:
        root, now = self._config.root, time.monotonic()
        for key in decided.remove:
            if await self._tried(key, "removed", partial(cache.remove, root, [key], force=False, dry_run=False)):
                self._notices.note(key, "removed: no entry wants it any more")
                self._known.survey_soon()
        if self._known.survey.problem is None and self._worker.job is None and now - self._collected_at >= _COLLECT_EVERY:
            self._collected_at = now
            await self._tried(
                "garbage", "collected", partial(cache.gc, root, unused_for=cache.RESUMABLE, pods=None, dry_run=False)
            )

    async def _tried(self, subject: str, done: str, act: Callable[[], object]) -> bool:
        """Change the root by `act`, on a thread. Whether that was done."""
        try:
            await run_uncancelled(act)
        except FetchError as error:
            self._notices.problem(subject, Problem(error.reason, error.message))
            return False
        self._config.means.step(f"{done} {subject}")
        return True

    async def _rechecking(self) -> None:
        """Try again at once what failed, when its ModelCache or its Secret has changed."""
        while True:
            await asyncio.sleep(self._config.recheck_interval * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load
            for key, attempt in list(self._known.memory.attempts.items()):
                try:
                    versions = await versions_of(self._api, attempt.wanted, self._known.account)
                except ApiError:
                    continue
                if versions != attempt.versions and self._known.memory.attempts.get(key) is attempt:
                    self._known.memory = remembering.retried(self._known.memory, key)
                    self._known.changed.set()

    async def _scrubbing(self) -> None:
        while True:
            ready = [key for key, each in self.counts.observed.items() if each.phase in COPIES]
            key = self._schedule.due(ready, now=time.monotonic(), chance=random.random)
            if key is None:
                await asyncio.sleep(min(_SCRUB_LOOKS, self._config.scrub_interval))
                continue
            damage = await scrub(self._config.root, key, max_rate=self._config.scrub_rate, count=self.counts.read_again)
            self._schedule.read(key, now=time.monotonic())
            if damage is not None:
                self._worker.damages[key] = damage
                self._known.memory = remembering.damaged(self._known.memory, key, damage.shown)
                self._notices.note(key, f"damaged: {damage.shown}")
                self._known.changed.set()
