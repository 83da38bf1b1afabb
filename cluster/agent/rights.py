"""Which node may have which artifact: what its NodeCache names, as the node that is asked knows it too.

A caller is the node in its certificate. Its NodeCache is asked for by name, and remembered for a minute.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.agent.reporting import NODES
from cluster.client import Api, ApiError, Missing
from cluster.resources import NODE_CACHE
from cluster.resources.artifact import name_of
from fetcher.serving import Caller, Verdict

_TIMEOUT = 10.0
"""Seconds for an answer of the API server, while a thread of the server waits."""
GRANTED, DENIED = 60.0, 5.0
"""Seconds for which a NodeCache is believed when it gives a right, and when it does not: a node fetches as soon as it may."""
_MOST = 1024


@dataclass(frozen=True, slots=True)
class _Known:
    """The artifacts of a node that are ours too, by name, and when they were asked for."""

    names: frozenset[str]
    at: float


class Rights:
    """Decides for callers, on any thread. `own` returns the entries of this node: marks by cache key.

    `loop` is the one on which `api` is used.
    """

    def __init__(
        self,
        api: Api,
        loop: asyncio.AbstractEventLoop,
        own: Callable[[], Mapping[str, str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._loop = loop
        self._own = own
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}

    def __call__(self, caller: Caller, key: str) -> Verdict:
        """Grant an artifact that both nodes shall have, by the same CacheArtifact: of one pool, model and revision."""
        mark = self._own().get(key)
        if mark is None or len(caller.names) != 1:
            return "denied"
        (node,), wanted = caller.names, name_of(key, mark)
        with self._lock:
            known = self._known.get(node)
        if known is not None and self._clock() - known.at < (GRANTED if wanted in known.names else DENIED):
            return "granted" if wanted in known.names else "denied"
        try:
            found = asyncio.run_coroutine_threadsafe(self._ask(node), self._loop).result(_TIMEOUT)
        except (ApiError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            return "unavailable"
        with self._lock:
            self._known.pop(node, None)
            self._known[node] = _Known(found, self._clock())
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        return "granted" if wanted in found else "denied"

    async def _ask(self, node: str) -> frozenset[str]:
        """Return what a node shall have that this one shall have too. Raises ApiError."""
        try:
            found = NODE_CACHE.read(await self._api.get(NODES, node, cached=True))
        except (Missing, ValueError):
            return frozenset()
        own = self._own()
        return frozenset(name_of(key, each.mark) for key, each in found.spec.artifacts.items() if own.get(key) == each.mark)
