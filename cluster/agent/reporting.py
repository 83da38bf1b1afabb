"""The status of the NodeCache: written when something changed, rarely, and as a whole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from cluster.agent.states import Survey
from cluster.client import Api, endpoint_of
from cluster.client.errors import ApiError
from cluster.resources import NODE_CACHE, Condition, NodeCacheStatus, Observed, encoded, moments
from cluster.resources.conditions import merged
from fetcher.quantities import size

NODES = endpoint_of(NODE_CACHE)
_LONGEST_WAIT = 60.0
"""Seconds between two tries while the API server does not answer."""
_LONGEST = 1000
"""Characters of a message: the path of a file may be thousands."""
_NOTABLE = 100
"""A change of capacity or use below a hundredth of the capacity is written with the next other change only."""


def status_of(observed: Iterable[Observed], survey: Survey, generation: int) -> NodeCacheStatus:
    """Return the status, without the times of its conditions. Pure."""
    problem = survey.problem
    ready = (
        Condition("Ready", "True", "Ready", "", generation)
        if problem is None
        else Condition("Ready", "False", problem.reason, problem.message[:_LONGEST], generation)
    )
    return NodeCacheStatus(survey.capacity, survey.used, tuple(observed), (ready, *_over(survey, generation)))


def _over(survey: Survey, generation: int) -> tuple[Condition, ...]:
    if survey.problem is not None or survey.used <= survey.capacity:
        return ()
    message = (
        f"{size(survey.used)} are used of {size(survey.capacity)}; nothing is evicted until a fetch needs room; raise the "
        "pool's limit, or remove models"
    )
    return (Condition("OverLimit", "True", "OverLimit", message, generation),)


def differs(before: NodeCacheStatus | None, now: NodeCacheStatus, *, busy: bool) -> bool:
    """Whether `now` is worth a write. While a fetch runs, the bytes in use change all the time, and that is not. Pure."""
    if before is None or before.artifacts != now.artifacts or _timeless(before.conditions) != _timeless(now.conditions):
        return True
    least = max(1, now.capacity // _NOTABLE)
    return not busy and (abs(before.used - now.used) >= least or abs(before.capacity - now.capacity) >= least)


def _timeless(conditions: Iterable[Condition]) -> list[Condition]:
    return [replace(each, last_transition_time="", observed_generation=0) for each in conditions]


class Reporter:
    """Writes the statuses that it is offered, at most one in `interval` seconds, with jitter."""

    def __init__(self, api: Api, node: str, *, interval: float, on_problem: Callable[[ApiError], None]) -> None:
        self._api = api
        self._node = node
        self._interval = interval
        self._on_problem = on_problem
        self._offered: NodeCacheStatus | None = None
        self._written: NodeCacheStatus | None = None
        self._changed = asyncio.Event()
        self.written_at: float | None = None
        """Seconds since 1970 of the last write that succeeded."""
        self.writes = 0

    def begin(self, status: NodeCacheStatus) -> None:
        """Take what stands in a NodeCache that is new here, as an earlier process wrote it: conditions keep their times."""
        self._written = status

    def offer(self, status: NodeCacheStatus, *, busy: bool) -> None:
        """Write `status` soon, if it is worth it."""
        if self._offered is not None or differs(self._written, status, busy=busy):
            self._offered = status
            self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        wait = 0.0
        while True:
            await self._changed.wait()
            await asyncio.sleep(wait)
            written = await self.flush()
            jitter = random.uniform(0.9, 1.3)  # noqa: S311 - spreads load, protects nothing
            wait = self._interval * jitter if written else min(_LONGEST_WAIT, 2 * wait + 1.0)

    async def flush(self) -> bool:
        """Write what was offered last, now. Return whether nothing is left to write."""
        status = self._offered
        if status is None:
            return True
        before = self._written.conditions if self._written is not None else ()
        status = replace(status, conditions=merged(before, status.conditions, moment=moments.now()))
        document = {"apiVersion": NODES.api_version, "kind": NODES.kind, "metadata": {"name": self._node}}
        offered, self._offered = self._offered, None
        self._changed.clear()
        try:
            await self._api.apply(NODES, {**document, "status": encoded(status)}, subresource="status")
        except ApiError as error:
            self._on_problem(error)
            if self._offered is None:
                self._offered = offered
            self._changed.set()
            return False
        self._written, self.written_at, self.writes = status, time.time(), self.writes + 1
        return True
