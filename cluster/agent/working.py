"""The jobs of the agent, one after the other: a fetch, or a repair of what a scrub found."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from cluster.agent import remembering
from cluster.agent.config import Config
from cluster.agent.counting import Counts
from cluster.agent.deciding import Plan
from cluster.agent.fetching import fetch, repair
from cluster.agent.intent import Intent, described, intent_of
from cluster.agent.knowing import Knowledge
from cluster.agent.notices import Notices
from cluster.agent.peering import Peering
from cluster.agent.scrubbing import Damage, Schedule, scrub
from cluster.agent.states import Job, Wanted
from cluster.client import Api
from fetcher.artifact import ORIGIN, redact
from fetcher.errors import FetchError
from fetcher.events import BytesReceived, Event, Evicted, Subscriber

Rendered = Callable[[], AbstractContextManager[Subscriber]]
"""Makes a subscriber for the events of one fetch."""


class Worker:
    """Does one job at a time. `job` is the present one."""

    def __init__(
        self,
        api: Api,
        config: Config,
        known: Knowledge,
        *,
        counts: Counts,
        notices: Notices,
        schedule: Schedule,
        rendered: Rendered,
        peering: Peering,
    ) -> None:
        self._api = api
        self._config = config
        self._known = known
        self._counts = counts
        self._notices = notices
        self._schedule = schedule
        self._rendered = rendered
        self._peering = peering
        self._brought: dict[str, Counter[str]] = {}
        self._ranks: Mapping[str, int] = {}
        self._assigned = asyncio.Event()
        self._doing: asyncio.Task[None] | None = None
        self.job: Job | None = None
        self.damages: dict[str, Damage] = {}

    def assign(self, decided: Plan) -> None:
        """Begin the job of a plan, or stop the present one."""
        if decided.stop and self._doing is not None:
            self._doing.cancel()
        if decided.job is not None and self.job is None:
            self.job, self._ranks = decided.job, decided.ranks
            self._assigned.set()

    async def run(self) -> None:
        """Do what is assigned until cancelled; a fetch that is cancelled stays resumable. A bug ends the agent, visibly."""
        while True:
            await self._assigned.wait()
            self._assigned.clear()
            if (job := self.job) is None:
                continue
            self._doing = asyncio.ensure_future(self._do(job))
            try:
                await asyncio.wait([self._doing])
            finally:
                self._doing.cancel()
                await asyncio.wait([self._doing])
                self.job = None
                self._known.survey_soon()
            if self._doing.cancelled():
                self._notices.note(job.wanted.key, "stopped, since it is not wanted any more; what was fetched stays resumable")
            else:
                self._doing.result()

    async def _do(self, job: Job) -> None:
        wanted, versions = job.wanted, tuple[str, ...]()
        try:
            objects = await described(self._api, wanted, self._known.account)
            versions = objects.versions
            intent = intent_of(
                wanted,
                objects,
                self._known.allowed_sources,
                self._config.means.environ,
                allow_loopback=self._config.allow_loopback,
            )
            with self._rendered() as on_event:
                work = self._repair if job.kind == "repair" else self._fetch
                await work(wanted, intent, partial(self._heard, wanted, on_event))
        except FetchError as error:
            chance, now = random.random(), time.monotonic()  # noqa: S311 - spreads load, protects nothing
            versions = versions or (error.reason,)
            self._known.memory = remembering.failed(
                self._known.memory, wanted, error, versions, now=now, jitter=chance, bound=self._known.bound
            )
            self._notices.note(wanted.key, error.sentence())

    async def _fetch(self, wanted: Wanted, intent: Intent, on_event: Subscriber) -> None:
        lying = self._known.survey.lying.get(wanted.key)
        lies = lying is not None and lying.revision == wanted.revision
        self._notices.note(
            wanted.key, f"fetching {wanted.bytes} bytes of {redact(intent.ref.uri)} for {wanted.namespace}/{wanted.model}"
        )
        cached = await fetch(
            wanted,
            intent,
            self._config.means,
            self._ranks,
            on_event,
            lies=lies,
            joined=partial(self._peering.joined, key=wanted.key),
        )
        came = self._brought.pop(wanted.key, Counter())
        brought = (came[ORIGIN], came.total() - came[ORIGIN]) if self._peering.on else None
        self._known.learn(remembering.completed(self._known.memory, wanted, cached=cached, brought=brought))
        self._schedule.read(wanted.key, now=time.monotonic())
        self._notices.note(wanted.key, "complete already" if cached else "fetched and verified")

    async def _repair(self, wanted: Wanted, intent: Intent, on_event: Subscriber) -> None:
        damage = self.damages.pop(wanted.key, None) or await self._reread(wanted.key)
        fetched = 0
        if damage is not None:
            fetched = await repair(wanted, intent, self._config.means, self._ranks, on_event, damage)
        self._known.learn(remembering.completed(self._known.memory, wanted, cached=True))
        self._counts.repaired += 1
        self._notices.note(wanted.key, f"repaired; {fetched} bytes were fetched")

    async def _reread(self, key: str) -> Damage | None:
        """Read what an earlier process, or an earlier repair, left damaged. Without a limit: nobody can use it meanwhile."""
        return await scrub(self._config.root, key, max_rate=None, count=self._counts.read_again)

    def _heard(self, wanted: Wanted, on_event: Subscriber, event: Event) -> None:
        self._counts(event)
        if isinstance(event, BytesReceived):  # also those of a try that fails: the next one goes on
            self._brought.setdefault(wanted.key, Counter())[event.supplier] += event.bytes
        if isinstance(event, Evicted):
            self._known.learn(remembering.evicted(self._known.memory, event.key))
        on_event(event)
