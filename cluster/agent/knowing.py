"""What the agent knows: its NodeCache as the watch and the API server show it, the root as surveys find it, and its memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from cluster.agent import remembering
from cluster.agent.catalogue import Catalogue
from cluster.agent.config import Config
from cluster.agent.deciding import Plan, plan
from cluster.agent.intent import Account
from cluster.agent.notices import Notices
from cluster.agent.reporting import NODES, NodeCache
from cluster.agent.root import examine, limit, limits_of
from cluster.agent.states import Job, Memory, Problem, Room, Survey, Warmth
from cluster.agent.surveying import Surveyor
from cluster.client import Api, ApiError, Missing
from cluster.names import agents_of
from cluster.resources import NODE_CACHE, NodeCacheSpec
from fetcher import cache
from fetcher.errors import ConfigurationError
from fetcher.quantities import Amount, size
from fetcher.uncancelled import run_uncancelled


class Knowledge:
    """The knowledge of one agent. `changed` is set when something is worth another decision."""

    def __init__(self, api: Api, config: Config, notices: Notices) -> None:
        self._api = api
        self._config = config
        self._notices = notices
        self._surveyor = Surveyor(config.root)
        self._limits: cache.CacheLimits | None = None
        self._looked_at = 0.0
        self._surveyed_at = float("-inf")
        self.surveys = 0
        self.node: NodeCache | None = None
        self.memory = Memory()
        self.survey = Survey()
        self.used: frozenset[str] = frozenset()
        """Keys whose use by pods has begun or ended, and is to be recorded: pods that mount a directory record nothing."""
        self.changed = asyncio.Event()
        self.catalogue = Catalogue(
            api,
            on_known=self.changed.set,
            on_problem=lambda key, error: notices.problem(key, Problem(error.reason, error.message)),
        )

    @property
    def account(self) -> Account:
        """The service account of this agent."""
        pool = self.node.spec.pool if self.node is not None else ""
        return Account(self._config.namespace, self._config.service_account or agents_of(pool))

    @property
    def allowed_sources(self) -> tuple[str, ...]:
        return self.node.spec.allowed_sources if self.node is not None else ()

    @property
    def survey_due(self) -> float:
        """When the next survey is due, by the monotonic clock."""
        return self._surveyed_at + self._config.survey_interval

    def survey_soon(self) -> None:
        """Make a survey due: something in the root has changed."""
        self._surveyed_at = float("-inf")
        self.changed.set()

    def learn(self, memory: Memory) -> None:
        """Take the memory after something in the root has changed, which a survey that is under way may have missed."""
        self.memory = memory
        self.survey_soon()

    @property
    def room(self) -> Room:
        """The memory that belongs to models."""
        spec = self.node.spec if self.node is not None else None
        return Room(spec.memory_budget, files=spec.medium == "Memory") if spec is not None else Room()

    @property
    def bound(self) -> str:
        """What bounds the root besides the pool's limit; empty if nothing does."""
        budget = self.room.budget
        binds = self.room.files and self._limits is not None and self._limits.max_size == Amount(budget)
        return f"the pool's memory.budget, {size(budget)}, bounds what lies in memory" if binds else ""

    def plan(self, running: Job | None, warmth: Mapping[str, Warmth]) -> Plan:
        """Return what to do now."""
        wanted = self.catalogue.wanted() if self.node is not None else None
        return plan(
            wanted,
            self.survey,
            self.memory,
            running,
            now=time.monotonic(),
            grace=self._config.orphan_grace,
            room=self.room,
            warmth=warmth,
        )

    def look(self, node: NodeCache | None) -> None:
        """Take the NodeCache as the watch has it. A missing one changes nothing."""
        before, self.node = self.node, node
        if node is None or node is before:
            return
        self.catalogue.look(node.spec)
        if node.metadata.uid != self.memory.uid:
            self.memory = remembering.adopted(self.memory, node.status.artifacts)
        if before is None or _limits(node) != _limits(before):
            self.memory = remembering.resized(self.memory)
            self.survey_soon()
        elif _spared(before) - _spared(node):
            self.memory = remembering.roomier(self.memory)
        self.used |= _held(node) ^ (_held(before) if before is not None else frozenset())
        self._remember(node)

    async def confirm(self) -> None:
        """Look once more, at the API server itself: a silent watch has not confirmed that an entry is gone."""
        pending = [since for key, since in self.memory.gone.items() if key not in self.memory.unwanted]
        now = time.monotonic()
        if not pending or now - min(pending) < remembering.APART or now - self._looked_at < remembering.APART / 2:
            return
        try:
            self._remember(NODE_CACHE.read(await self._api.get(NODES, self._config.node)))
        except Missing:
            return
        except ApiError as error:
            self._notices.api(error)
        except ValueError:  # the watch tells of it
            return

    async def survey_if_due(self) -> None:
        """Examine and survey the root, until no job ends meanwhile, whose work a survey may have missed."""
        while self.node is not None and time.monotonic() >= self.survey_due:
            began = self._surveyed_at = time.monotonic()
            survey = await run_uncancelled(self._examined, self.node.spec)
            if self._surveyed_at != began:
                continue
            self.survey, self.surveys = survey, self.surveys + 1
            if survey.problem is None:
                self.memory = remembering.surveyed(self.memory, survey.lying, began)
            self._notices.problem("root", survey.problem)

    def _remember(self, node: NodeCache) -> None:
        self._looked_at = time.monotonic()
        self.memory = remembering.looked(self.memory, node.metadata.uid, node.spec.artifacts, self._looked_at)

    def _examined(self, spec: NodeCacheSpec) -> Survey:
        ground = examine(self._config.root, spec.medium, allow_root_filesystem=spec.allow_root_filesystem)
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
            self._config.means.step("limits written")
        return self._surveyor.survey(limits)


def _limits(node: NodeCache) -> tuple[object, ...]:
    spec = node.spec
    return spec.limit, spec.min_free, spec.allow_root_filesystem, spec.medium, spec.memory_budget


def _spared(node: NodeCache) -> frozenset[str]:
    """The keys of what makes no room for others."""
    return _held(node) | {key for key, each in node.spec.artifacts.items() if each.retain == "Always"}


def _held(node: NodeCache) -> frozenset[str]:
    """The keys of what pods use."""
    return frozenset(key for key, each in node.spec.artifacts.items() if each.held)
