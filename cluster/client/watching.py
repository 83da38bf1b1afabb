"""What a part of the cluster looks like, kept up to date: listed once, then watched.

`objects` is only ever replaced by a complete list or changed by one event, so a name that is not in it was deleted. That is
what removals may rest on. Until `synced`, nothing is known.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from cluster.client.api import Api
from cluster.client.endpoints import Endpoint
from cluster.client.errors import ApiError, Gone

T = TypeVar("T")
Name = tuple[str, str]
"""Namespace and name; the namespace of objects of the whole cluster is empty."""

_WATCH = (35, 45)
"""Seconds of a watch, by chance. A connection that died silently is noticed within a minute, since a server that still lives
ends the watch by then. A new watch continues where the last one ended and costs one request."""
_LONGEST_WAIT = 20.0
"""Seconds between tries while the API server does not answer: after it is back, all is caught up within a minute."""


class Watched(Generic[T]):
    """The objects of one collection.

    `read` makes a T of an object and keeps only what is needed of it; a ValueError of it means that this version cannot read
    the object, whose name and problem are then in `unreadable`. `on_change` is called after each change, on the event loop.
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
    ) -> None:
        self._api = api
        self._endpoint = endpoint
        self._read = read
        self._on_change = on_change
        self._on_problem = on_problem
        self._where: dict[str, str] = {"namespace": namespace, "labels": labels, "fields": fields}
        self.objects: dict[Name, T] = {}
        self.unreadable: dict[Name, str] = {}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        since, wait = "", 0.0
        while True:
            try:
                since = since or await self._list()
                since = await self._watch(since)
                wait = 0.0
            except ApiError as error:
                if isinstance(error, Gone):
                    since = ""
                else:
                    self._on_problem(error)
                wait = min(_LONGEST_WAIT, wait * 2 + 0.5)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, protects nothing

    async def _list(self) -> str:
        page = await self._api.list(self._endpoint, **self._where)
        objects, unreadable = self.objects, self.unreadable
        self.objects, self.unreadable = {}, {}
        for item in page.items:
            self._take(item, objects.get(_name(item)))
        self.synced.set()
        if self.objects != objects or self.unreadable != unreadable:
            self._on_change()
        return page.resource_version

    async def _watch(self, since: str) -> str:
        """Watch once. Return where to go on; an error in between loses nothing, because the same changes come again."""
        seconds = random.randint(*_WATCH)  # noqa: S311 - spreads load, protects nothing
        async with aclosing(self._api.watch(self._endpoint, since=since, seconds=seconds, **self._where)) as changes:
            async for kind, item in changes:
                since = str((item.get("metadata") or {}).get("resourceVersion") or since)
                if kind == "DELETED":
                    self.objects.pop(_name(item), None)
                    self.unreadable.pop(_name(item), None)
                elif kind in ("ADDED", "MODIFIED"):
                    self._take(item, self.objects.get(_name(item)))
                if kind != "BOOKMARK":
                    self._on_change()
        return since

    def _take(self, item: Mapping[str, Any], before: T | None) -> None:
        """Keep an object, or its last readable form beside what makes the present one unreadable."""
        name = _name(item)
        self.unreadable.pop(name, None)
        try:
            self.objects[name] = self._read(item)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.unreadable[name] = str(error)
            if before is not None:
                self.objects[name] = before


def _name(item: Mapping[str, Any]) -> Name:
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
