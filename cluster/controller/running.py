"""The controller at work: it looks, decides and writes, again and again, as long as it leads."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.client import Api, ApiError
from cluster.controller.admitting import verdicts
from cluster.controller.asking import questions
from cluster.controller.daemon_set import Agents
from cluster.controller.figures import Figures
from cluster.controller.observing import Observer
from cluster.controller.planning import plan, takes_away
from cluster.controller.resolving import Means, Resolver
from cluster.controller.world import Name, Peering, Resolution, World
from cluster.controller.writing import Writer
from cluster.resources import moments
from cluster.together import first_of, is_set_within
from fetcher.errors import FetchError
from fetcher.events import Noted, Subscriber, Warned

if TYPE_CHECKING:
    from cluster.controller.issuing import Issuer

UNBOUND = (
    "UnboundAgents",
    "without the admission policy any agent could take the name of any node; install the policy, or set peers.mode to Off",
)
TICK = 10.0
"""Seconds between two looks when nothing changes: leases that are not renewed make no change."""


@dataclass(frozen=True, slots=True)
class Config:
    """How the controller runs. `patience`: seconds without a renewal until an agent counts as dead.

    `status_interval`: seconds between two statuses of one object.
    """

    namespace: str
    agents: Agents
    means: Means
    patience: float
    status_interval: float
    allow_loopback: bool
    claim_sources: tuple[str, ...]
    account: str
    peer_secret: str
    unbound: bool = False
    """Whether any agent may write the status of any node."""


class Controller:
    """One process. It observes from the start, and acts once `lead` is awaited."""

    def __init__(self, api: Api, config: Config, on_event: Subscriber) -> None:
        self._config = config
        self._on_event = on_event
        self._changed = asyncio.Event()
        self._observer = Observer(api, config.namespace, config.patience, on_change=self._changed.set, on_problem=self._problem)
        self._writer = Writer(api, status_interval=config.status_interval, on_note=self._note, on_problem=self._problem)
        self._resolver = Resolver(api, config.means, on_answer=self._answered)
        self._issuer: Issuer | None = None
        self._api = api
        self._yielded: frozenset[tuple[str, str]] = frozenset()
        self._last_problem = ""
        self.figures = Figures()

    @property
    def is_synced(self) -> bool:
        return self._observer.watches.is_synced

    async def observe(self) -> None:
        """Watch the cluster until cancelled."""
        await first_of(*self._observer.watches.runs())

    async def lead(self) -> None:
        """Decide and write until cancelled. Raises NotLeading if another process leads."""
        try:
            await self._observer.watches.synced()
            while True:
                began = time.monotonic()
                self._changed.clear()
                if self._observer.is_installed:
                    await self._pass(began)
                await self._pause(began)
        finally:
            await self._resolver.aclose()

    async def _pass(self, now: float) -> None:
        world = self._look(now)
        rules: Any = {"allow_loopback": self._config.allow_loopback, "claim_sources": self._config.claim_sources}
        judged = verdicts(world, **rules)
        asked = questions(world, judged)
        self._resolver.recall(world, asked)
        world = replace(world, resolutions=self._resolver.resolutions, peering=await self._peers(world))
        decided = plan(world, self._config.agents, moment=moments.now(), **rules)
        self.figures = Figures(
            self.figures.passes + 1, time.monotonic() - now, len(world.nodes), len(world.models), self._writer.bytes
        )
        self._yielded = decided.yielded
        self._resolver.ask(asked)
        if takes_away(decided, world) and not await self._may_take_away():
            return
        await self._writer.write(decided, world)

    async def _peers(self, world: World) -> Peering:
        """Return what nodes know each other by. Agents that may write for any node could take any name."""
        if not any(pool.spec.peers.mode == "On" for pool in world.pools.values()):
            return Peering()
        if self._config.unbound:
            return Peering(problem=UNBOUND)
        if self._issuer is None:
            from cluster.controller.issuing import Issuer  # late: cryptography takes 13 MiB

            config = self._config
            self._issuer = Issuer(self._api, config.namespace, config.account, config.peer_secret, on_problem=self._problem)
        return await self._issuer.look(world)

    async def _may_take_away(self) -> bool:
        """Whether what vanished was deleted by somebody, and not with its kind. Without an answer nothing is removed."""
        try:
            return await self._observer.is_still_installed()
        except ApiError as error:
            self._problem(error)
            return False

    def _look(self, now: float) -> World:
        refusals = {place: each.sentence for place, each in self._writer.refusals.items()}
        return self._observer.world(self._resolver.resolutions, refusals, self._yielded, now=now)

    async def _pause(self, began: float) -> None:
        """Wait for a change, and long enough that passes do not take a core: they take longer with more nodes."""
        interval = max(1.0, self.figures.nodes / 100)
        soonest = began + interval
        latest = min(began + TICK, max(soonest, self._resolver.next_due))
        if self._writer.behind:
            latest = soonest
        await is_set_within(self._changed, max(0.0, latest - time.monotonic()))
        await asyncio.sleep(max(0.05, soonest - time.monotonic()))

    def _answered(self, name: Name, resolution: Resolution) -> None:
        if resolution.reason:
            self._note(f"modelcaches {name[0]}/{name[1]}", f"{resolution.reason}: {resolution.message}")
        self._changed.set()

    def _note(self, subject: str, message: str) -> None:
        self._on_event(Noted(subject, message))

    def _problem(self, error: FetchError) -> None:
        if (sentence := error.sentence()) != self._last_problem:  # an API server that is away says the same again and again
            self._on_event(Warned(error.reason, str(error)))
        self._last_problem = sentence
