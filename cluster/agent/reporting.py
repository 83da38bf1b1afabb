"""The status of the NodeCache: written when something changed, rarely, and only what changed."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cluster.agent.states import Announced, Survey
from cluster.client import Api, endpoint_of
from cluster.client.errors import ApiError, Conflict
from cluster.resources import (
    NODE_CACHE,
    Condition,
    NodeCacheSpec,
    NodeCacheStatus,
    Observed,
    Resource,
    encoded,
    merge_patch,
    moments,
)
from cluster.resources.conditions import merged
from cluster.together import is_set_within
from fetcher.quantities import size

NODES = endpoint_of(NODE_CACHE)
NodeCache = Resource[NodeCacheSpec, NodeCacheStatus]
_LONGEST_WAIT = 60.0
"""Seconds between two tries while the API server does not answer."""
_LONGEST = 1000
"""Characters of a message: the path of a file may be thousands."""
_MORE_TO_COME = 3
"""Intervals for which a node of a large cluster that fetches waits for more to tell: each status is a whole object to etcd."""
_NOTABLE = 100
"""A change of capacity or use below a hundredth of the capacity is written with the next other change only."""


def status_of(
    observed: Mapping[str, Observed], survey: Survey, generation: int, peer: Announced | None = None
) -> NodeCacheStatus:
    """Return the status, without the times of its conditions. Pure."""
    problem = survey.problem
    ready = (
        Condition("Ready", "True", "Ready", "", generation)
        if problem is None
        else Condition("Ready", "False", problem.reason, problem.message[:_LONGEST], generation)
    )
    address, key = (peer.address, peer.key) if peer is not None else (None, None)
    return NodeCacheStatus(survey.capacity, survey.used, observed, (ready, *_over(survey, generation)), address, key)


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
    if (before.peer_address, before.peer_key) != (now.peer_address, now.peer_key):
        return True
    least = max(1, now.capacity // _NOTABLE)
    return not busy and (abs(before.used - now.used) >= least or abs(before.capacity - now.capacity) >= least)


def _timeless(conditions: Iterable[Condition]) -> list[Condition]:
    return [replace(each, last_transition_time="", observed_generation=0) for each in conditions]


class Reporter:
    """Writes the statuses that it is offered, at most one in `pause` seconds, with jitter, and of each what has changed."""

    def __init__(self, api: Api, *, interval: float, on_problem: Callable[[ApiError], None]) -> None:
        self._api = api
        self._interval = interval
        self._on_problem = on_problem
        self._offered: NodeCacheStatus | None = None
        self._there: NodeCache | None = None
        self._awaited = ""
        self._busy = False
        self._changed = asyncio.Event()
        self._last = -math.inf
        self._jitter = 1.0
        self.written_at: float | None = None
        """Seconds since 1970 of the last write that succeeded."""
        self.writes = 0

    def see(self, node: NodeCache) -> None:
        """Take the NodeCache as the watch shows it, which is behind our last write until it shows that."""
        if self._awaited in ("", node.metadata.resource_version):
            self._there, self._awaited = node, ""

    def offer(self, status: NodeCacheStatus, *, busy: bool) -> None:
        """Write `status` soon, if it is worth it. `busy`: a fetch runs, so more is to come."""
        self._busy = busy
        there = self._there.status if self._there is not None else None
        if self._offered is not None or differs(there, status, busy=busy):
            self._offered = status
            self._changed.set()

    async def run(self) -> None:
        """Write until cancelled."""
        wait = 0.0
        while True:
            await self._changed.wait()
            await asyncio.sleep(wait)
            await self._rest()
            wait = 0.0 if await self.flush() else min(_LONGEST_WAIT, 2 * wait + 1.0)

    async def _rest(self) -> None:
        """Wait until the pause since the last write is over. What is offered meanwhile can make it shorter."""
        while (left := self._last + self.pause * self._jitter - time.monotonic()) > 0:
            self._changed.clear()
            await is_set_within(self._changed, left)

    @property
    def pause(self) -> float:
        """Seconds between two writes: in a large cluster the NodeCache says how many, and a node that fetches takes more."""
        asked = self._there.spec.status_interval if self._there is not None else None
        return max(self._interval, float(asked or 0) * (_MORE_TO_COME if self._busy else 1))

    async def flush(self) -> bool:
        """Write what was offered last, now. Return whether nothing is left to write."""
        offered, self._offered = self._offered, None
        self._changed.clear()
        if offered is None or self._there is None:
            return True
        try:
            try:
                await self._write(self._there, offered)
            except Conflict:  # the controller has written meanwhile, and the watch has not shown it yet
                there = NODE_CACHE.read(await self._api.get(NODES, self._there.metadata.name))
                await self._write(there, offered)
        except ApiError as error:
            self._on_problem(error)
            if self._offered is None:
                self._offered = offered
            self._changed.set()
            return False
        self.written_at, self.writes = time.time(), self.writes + 1
        self._last = time.monotonic()
        self._jitter = random.uniform(0.9, 1.3)  # noqa: S311 - spreads load, protects nothing
        return True

    async def _write(self, there: NodeCache, status: NodeCacheStatus) -> None:
        """Write what is different from what is there, to exactly that version. Raises Conflict if it is another one by now."""
        self._there, self._awaited = there, ""
        conditions = merged(there.status.conditions, status.conditions, moment=moments.now())
        change = merge_patch(encoded(there.status), encoded(replace(status, conditions=conditions)))
        metadata = {"resourceVersion": there.metadata.resource_version, "uid": there.metadata.uid}
        patch = {"metadata": metadata, "status": change}
        answer = NODE_CACHE.read(await self._api.merge(NODES, there.metadata.name, "", patch, subresource="status"))
        self._there, self._awaited = answer, answer.metadata.resource_version
