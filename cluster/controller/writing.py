"""Writes what a plan wants and the cluster lacks. Each write is of one object, and fails for it alone.

What the API server refuses is remembered: the next plan tells it, and it is tried again later. At most so many bytes of objects
are written in a second, on average.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from cluster.client import Api, ApiError, Conflict, Missing, Unavailable, endpoint_of
from cluster.client.endpoints import (
    CLAIMS,
    DAEMON_SETS,
    JOBS,
    LEASES,
    SERVICE_ACCOUNTS,
    VOLUMES,
    Endpoint,
)
from cluster.client.endpoints import (
    NODES as MACHINES,
)
from cluster.client.errors import NotLeading
from cluster.client.telling import Type, tell
from cluster.controller.actions import Action, Change, Make, Remove
from cluster.controller.budget import Budget
from cluster.controller.patience import seconds_apart
from cluster.controller.planning import Plan
from cluster.controller.reading import CONTROLLER, MANAGED_BY, RENDERED, RETENTION
from cluster.controller.telling import changed
from cluster.controller.world import Model, Name, World
from cluster.names import POOL_LABEL, short
from cluster.resources import (
    CACHE_ARTIFACT,
    CACHE_POOL,
    MODEL_CACHE,
    NODE_CACHE,
    CachePoolStatus,
    Condition,
    ModelCacheStatus,
    encoded,
    merge_patch,
)
from cluster.resources.conditions import status_of

POOLS, MODELS, NODES = endpoint_of(CACHE_POOL), endpoint_of(MODEL_CACHE), endpoint_of(NODE_CACHE)
ENDPOINTS: Mapping[str, Endpoint] = {
    each.kind: each
    for each in (endpoint_of(CACHE_ARTIFACT), VOLUMES, CLAIMS, DAEMON_SETS, SERVICE_ACCOUNTS, JOBS, LEASES, MACHINES)
}
_AT_ONCE = 8
"""Objects that are written at once: one takes some ten milliseconds, and a cluster has a thousand nodes."""
REFUSED_FOR = 30.0
"""Seconds until a write that was refused is tried again."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server's sentence about an object, and when it said so, by the monotonic clock."""

    sentence: str
    since: float


class Writer:
    """Writes differences, the status of one object at most once in `status_interval` seconds.

    `on_note` gets a subject and a sentence for each write that a person may want to know of.
    """

    def __init__(
        self,
        api: Api,
        *,
        status_interval: float,
        on_note: Callable[[str, str], None],
        on_problem: Callable[[ApiError], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._status_interval = status_interval
        self._on_note = on_note
        self._on_problem = on_problem
        self._clock = clock
        self._budget = Budget(clock)
        self._told: dict[tuple[str, Name], float] = {}
        self._wrote: dict[str, float] = {}
        self.refusals: dict[tuple[str, str, str], Refusal] = {}
        self.bytes = 0
        """Of all objects that were written."""
        self.behind = False
        """Whether something is left to write, because of the budget or the interval of statuses."""

    async def write(self, plan: Plan, world: World) -> None:
        """Write what differs. Raises NotLeading; any other refusal is remembered."""
        self.behind = False
        now = self._clock()
        self._told = {(kind, name): since for (kind, name), since in self._told.items() if now - since < self._status_interval}
        self._wrote = {node: since for node, since in self._wrote.items() if node in plan.specs}
        self.refusals = {place: each for place, each in self.refusals.items() if now - each.since < REFUSED_FOR}
        for action in plan.actions:
            await self._act(action)
        for pool, of_pool in plan.pools.items():
            if world.pools[pool].status != of_pool:
                await self._tell(POOLS, ("", pool), of_pool)
        models = [(world.models[name], name, status) for name, status in plan.models.items()]
        await _beside(self._tell_model(*each) for each in models if each[0].status != each[2])
        # The one that waits longest first, so that none waits for ever.
        nodes = sorted(plan.specs, key=lambda each: self._wrote.get(each, 0.0))
        await _beside(self._specify(node, plan, world) for node in nodes)
        for node in plan.removed:
            await self._act(Remove("NodeCache", "", node, world.caches[node].uid))

    async def _specify(self, node: str, plan: Plan, world: World) -> None:
        spec, there = plan.specs[node], world.caches.get(node)
        if there is not None:
            apart = seconds_apart(there, spec)
            if apart is None or self._clock() - self._wrote.get(node, -math.inf) < apart:
                return
        labels = {MANAGED_BY: CONTROLLER, POOL_LABEL: short(spec.pool)}
        document: dict[str, Any]
        if there is None:
            metadata = {"name": node, "labels": labels}
            document = {"apiVersion": NODES.api_version, "kind": NODES.kind, "metadata": metadata, "spec": encoded(spec)}
        else:
            of_exactly = {"resourceVersion": there.resource_version, "uid": there.uid}
            document = {
                "metadata": {"labels": labels, **of_exactly} if there.spec.pool != spec.pool else of_exactly,
                "spec": merge_patch(encoded(there.spec), encoded(spec)),
            }

        def write() -> Any:
            return self._api.create(NODES, document) if there is None else self._api.merge(NODES, node, "", document)

        if await self._tried(("NodeCache", "", node), write, document):
            self._wrote[node] = self._clock()

    async def _act(self, action: Action) -> None:
        kind, namespace, name = action.place
        endpoint = NODES if kind == "NodeCache" else ENDPOINTS[kind]
        document: Mapping[str, Any] = {}
        write: Callable[[], Awaitable[Any]]
        if isinstance(action, Make):
            verb, document, write = "made", action.document, partial(self._make, action)
        elif isinstance(action, Change):
            verb, document, write = "changed", action.patch, partial(self._api.merge, endpoint, name, namespace, action.patch)
        else:
            verb, write = "removed", partial(self._api.delete, endpoint, name, namespace, uid=action.uid)
        if await self._tried(action.place, write, document):
            self._on_note(f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}", verb)

    async def _make(self, action: Make) -> None:
        """Create the object, or change it if it exists and is ours, else raise Conflict."""
        kind, namespace, name = action.place
        endpoint, document = ENDPOINTS[kind], action.document
        if kind not in _CHANGEABLE:
            try:
                await self._api.create(endpoint, document)
            except Conflict:
                _refuse_strange(action, await self._api.get(endpoint, name, namespace))
            return
        # Applied from the start, so that a field that goes from the document goes from the object.
        try:
            there = await self._api.get(endpoint, name, namespace)
        except Missing:
            await self._api.apply(endpoint, document)
            return
        _refuse_strange(action, there)
        if (there["metadata"].get("annotations") or {}).get(RENDERED) != action.rendered:
            metadata = {**document["metadata"], "uid": there["metadata"]["uid"]}
            await self._api.apply(endpoint, {**document, "metadata": metadata})

    async def _tell(self, endpoint: Endpoint, name: Name, status: CachePoolStatus | ModelCacheStatus) -> bool:
        place = {"name": name[1], **({"namespace": name[0]} if name[0] else {})}
        document = {"apiVersion": endpoint.api_version, "kind": endpoint.kind, "metadata": place, "status": encoded(status)}
        if (last := self._told.get((endpoint.kind, name))) is not None and self._clock() - last < self._status_interval:
            self.behind = True
            return False
        written = await self._tried(
            (endpoint.kind, *name), lambda: self._api.apply(endpoint, document, subresource="status"), document
        )
        if written:
            self._told[endpoint.kind, name] = self._clock()
        return written

    async def _tell_model(self, model: Model, name: Name, status: ModelCacheStatus) -> None:
        if not await self._tell(MODELS, name, status):
            return
        before = {each.type: each for each in model.status.conditions}
        for each in status.conditions:
            if changed(before, each):
                self._on_note(f"modelcaches {name[0]}/{name[1]}", f"{each.type}={each.status} {each.reason}: {each.message}")
                await self._event(model, each)

    async def _event(self, model: Model, condition: Condition) -> None:
        metadata = model.metadata
        about = {
            "apiVersion": MODELS.api_version,
            "kind": MODELS.kind,
            "metadata": {"namespace": metadata.namespace, "name": metadata.name, "uid": metadata.uid},
        }
        lost = (
            condition.type == "Ready" and condition.status == "False" and status_of(model.status.conditions, "Ready") == "True"
        )
        kind: Type = "Warning" if lost or (condition.type, condition.status) in _WARNING else "Normal"
        message = f"{condition.type} is {condition.status}: {condition.message}"
        if (error := await tell(self._api, about, kind, condition.reason, message)) is not None:
            self._on_problem(error)

    async def _tried(self, place: tuple[str, str, str], write: Callable[[], Any], document: Mapping[str, Any]) -> bool:
        """Whether the write was done. Raises NotLeading."""
        if place in self.refusals:
            return False
        if not self._budget.allows():
            self.behind = True
            return False
        size = len(json.dumps(document))
        self._budget.spend(size)
        try:
            await write()
        except NotLeading:
            raise
        except (Missing, Unavailable) as error:
            self._on_problem(error)
            return False
        except Conflict as error:
            if place[0] in ENDPOINTS:
                self._refuse(place, error)
            return False  # another version: the watch brings it, and the next plan decides anew
        except ApiError as error:
            self._refuse(place, error)
            return False
        self.bytes += size
        return True

    def _refuse(self, place: tuple[str, str, str], error: ApiError) -> None:
        self._on_problem(error)
        self.refusals[place] = Refusal(str(error), self._clock())


async def _beside(writes: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Do all writes, in this order, `_AT_ONCE` beside each other."""
    left = iter(writes)
    while some := list(islice(left, _AT_ONCE)):
        await asyncio.gather(*some)


_CHANGEABLE = ("DaemonSet", "ServiceAccount")
_WARNING = {("Resolved", "False"), ("Degraded", "True"), ("CapacityExceeded", "True"), ("RevisionConflict", "True")}


def _refuse_strange(action: Make, there: Mapping[str, Any]) -> None:
    """Raise Conflict for an object that somebody else made, and for a claim that was kept for another kind of placement."""
    metadata = there["metadata"]
    if (metadata.get("labels") or {}).get(MANAGED_BY) != CONTROLLER:
        raise Conflict(f"{action.kind} {metadata['name']} exists and is not weightlift's; rename or delete it")
    kept = RETENTION in (metadata.get("annotations") or {})
    if kept != (RETENTION in action.document["metadata"]["annotations"]):
        raise Conflict(f"{action.kind} {metadata['name']} is of another ModelCache of this name; rename or delete it")
