"""What a part of the cluster looks like, kept up to date: listed once, then watched.

`objects` is only ever replaced by a complete list or changed by one event, each of which comes once, so a name that is not in
it was deleted. That is what removals may rest on. Until `synced`, nothing is known.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cluster.client.api import Api
from cluster.client.endpoints import Endpoint
from cluster.client.errors import ApiError, Gone, Unavailable

T = TypeVar("T")
Name = tuple[str, str]
"""Namespace and name; the namespace of objects of the whole cluster is empty."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    watch: tuple[int, int] = (35, 45)
    """Of a watch, by chance. A connection that died silently is noticed within a minute, since a server that still lives ends
    the watch by then. A new watch continues where the last one ended and costs one request."""
    short: float = 1.0
    """A watch that ends sooner did not work: something between us and the API server ends it."""
    longest_wait: float = 20.0
    """Between tries while the API server does not answer: after it is back, all is caught up within a minute."""


PACE = Pace()


def pause(before: float, error: ApiError | None, *, lasted: float, pace: Pace) -> float:
    """Return the seconds to wait after a try that took `lasted`, and after which one waited `before` the last time."""
    if lasted >= pace.short:
        before = 0.0
        if error is None:
            return 0.0
    asked = error.retry_after or 0.0 if isinstance(error, Unavailable) else 0.0
    return min(pace.longest_wait, max(asked, before * 2 + 0.5))


class Watched(Generic[T]):
    """The objects of one collection.

    `read` makes a T of an object and keeps only what is needed of it; an error of it means that this version cannot read the
    object, whose name and problem are then in `unreadable`. `on_change` is called after each change, on the event loop, and
    once after the first list. `on_problem` is told of each try that failed.
    """

    def __init__(
        self,
        api: Api,
        endpoint: Endpoint,
        read: Callable[[Mapping[str, Any]], T],
        *,
        on_change: Callable[[], None],
        on_problem: Callable[[ApiError], None],
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        pace: Pace = PACE,
    ) -> None:
        self._api = api
        self._endpoint = endpoint
        self._read = read
        self._on_change = on_change
        self._on_problem = on_problem
        self._where: dict[str, str] = {"namespace": namespace, "labels": labels, "fields": fields}
        self._pace = pace
        self._since = ""
        self.objects: dict[Name, T] = {}
        self.unreadable: dict[Name, str] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        wait = 0.0
        while True:
            began, error = time.monotonic(), await self._try()
            if error is not None:
                self._on_problem(error)
            wait = pause(wait, error, lasted=time.monotonic() - began, pace=self._pace)
            await asyncio.sleep(wait * random.uniform(1.0, 1.5))  # noqa: S311 - not all agents of a cluster at once

    async def _try(self) -> ApiError | None:
        """List if need be, and watch once. Return what failed. What was seen before that is kept."""
        try:
            if not self._since:
                await self._list()
        except ApiError as error:
            return error
        try:
            await self._watch()
        except Gone:  # an everyday matter: the server keeps some minutes of changes
            self._since = ""
        except ApiError as error:
            return error
        return None

    async def _list(self) -> None:
        objects: dict[Name, T] = {}
        unreadable: dict[Name, str] = {}
        since = ""
        async with aclosing(self._api.pages(self._endpoint, **self._where)) as pages:
            async for page in pages:
                since = page.resource_version
                for item in page.items:
                    self._take(item, objects, unreadable)
        changed = not self.synced.is_set() or objects != self.objects or unreadable != self.unreadable
        self.objects, self.unreadable, self._since = objects, unreadable, since
        self.synced.set()
        if changed:
            self._on_change()

    async def _watch(self) -> None:
        """Watch once, and note each change as seen: the next watch goes on behind it, so that none comes twice."""
        seconds = random.randint(*self._pace.watch)  # noqa: S311 - spreads load, protects nothing
        changes = self._api.watch(self._endpoint, since=self._since, seconds=seconds, **self._where)
        async with aclosing(changes):
            async for kind, item in changes:
                if kind == "DELETED":
                    self.objects.pop(_name(item), None)
                    self.unreadable.pop(_name(item), None)
                elif kind in ("ADDED", "MODIFIED"):
                    self._take(item, self.objects, self.unreadable)
                self._since = str(item["metadata"].get("resourceVersion") or self._since)
                if kind != "BOOKMARK":
                    self._on_change()

    def _take(self, item: Mapping[str, Any], objects: dict[Name, T], unreadable: dict[Name, str]) -> None:
        """Keep an object, or its last readable form beside what makes the present one unreadable."""
        name = _name(item)
        unreadable.pop(name, None)
        try:
            objects[name] = self._read(item)
        except Exception as error:  # noqa: BLE001 - whatever it is, this object is the reason, and the others are none the worse
            unreadable[name] = f"{type(error).__name__}: {error}"
            if name in self.objects:
                objects[name] = self.objects[name]


def _name(item: Mapping[str, Any]) -> Name:
    metadata = item["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
