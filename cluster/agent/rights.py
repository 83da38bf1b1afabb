"""Which node may have which artifact: what its NodeCache names, as the node that is asked knows it too.

A caller is the node in its certificate. Its NodeCache is asked for by name, and believed for a minute. While the API server
does not answer, who had a right keeps it: models are to come to nodes then too, and nobody could be told of a right's end. The
certificate bounds that: it is valid for 30 days, and nobody renews it meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass

from cluster.agent.reporting import NODES
from cluster.client import Api, ApiError, Missing, Unavailable
from cluster.resources import NODE_CACHE
from cluster.resources.artifact import name_of
from cluster.resources.node import MOST_PEERS
from fetcher.serving import Caller, Verdict

TIMEOUT = 3.0
"""Seconds for an answer of the API server, while a thread of the server waits: it has NodeCaches in memory, and takes some
milliseconds. One that takes longer is as good as away."""
GRANTED, DENIED = 60.0, 5.0
"""Seconds for which a NodeCache is believed when it gives a right, and when it does not: a node fetches as soon as it may."""
AHEAD = GRANTED / 2
"""Seconds after which it is asked for again beside, so that no thread waits for a caller that goes on asking."""
SILENCE = 5.0
"""Seconds until an API server that did not answer is asked again."""
WAITING = MOST_PEERS
"""Threads of the server that wait at a time: all nodes that are told of this one may come at once. Others are told to come
again, and the other threads send files."""
_MOST = 1024


@dataclass(frozen=True, slots=True)
class _Known:
    """The artifacts of a node that are ours too, by name, and when they were asked for."""

    names: frozenset[str]
    at: float

    def verdict(self, wanted: str, now: float) -> Verdict | None:
        """None if it is too old to tell."""
        granted = wanted in self.names
        if now - self.at >= (GRANTED if granted else DENIED):
            return None
        return "granted" if granted else "denied"


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
        self._questions: dict[str, Future[None]] = {}
        self._silent = False
        self._again_at = float("-inf")
        self._waiting = threading.BoundedSemaphore(WAITING)

    def __call__(self, caller: Caller, key: str) -> Verdict:
        """Grant an artifact that both nodes shall have, by the same CacheArtifact: of one pool, model and revision."""
        mark = self._own().get(key)
        if mark is None or len(caller.names) != 1:
            return "denied"
        (node,), wanted = caller.names, name_of(key, mark)
        try:
            return self._remembered(node, wanted) or self._learnt(node, wanted)
        except RuntimeError:  # the loop has ended
            return "unavailable"

    def _remembered(self, node: str, wanted: str) -> Verdict | None:
        known, now = self._known.get(node), self._clock()
        verdict = known.verdict(wanted, now) if known is not None else None
        if known is not None and verdict == "granted" and now - known.at >= AHEAD:
            self._question(node)
        return verdict

    def _learnt(self, node: str, wanted: str) -> Verdict:
        """Wait for what the API server says. If it says nothing, who had the right keeps it."""
        if (question := self._question(node)) is not None and self._waiting.acquire(blocking=False):
            try:
                question.result(2 * TIMEOUT)  # the loop gives it up before, unless it has ended
            except (NotInTime, CancelledError):
                pass
            finally:
                self._waiting.release()
        known = self._known.get(node)
        verdict = known.verdict(wanted, self._clock()) if known is not None else None
        kept = self._silent and known is not None and wanted in known.names
        return verdict or ("granted" if kept else "unavailable")

    def _question(self, node: str) -> Future[None] | None:
        """The question about a node; None while another one finds out whether the API server is back, or it is too early."""
        with self._lock:
            if self._silent and (self._questions or self._clock() < self._again_at):
                return None
            if node not in self._questions:
                self._questions[node] = asyncio.run_coroutine_threadsafe(self._ask(node), self._loop)
            return self._questions[node]

    async def _ask(self, node: str) -> None:
        found: frozenset[str] | None = None
        silent = False
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await self._named(node)
        except (Unavailable, TimeoutError):
            silent = True
        except ApiError:
            pass  # it answers, but not to us: that is no right
        finally:
            with self._lock:
                del self._questions[node]
                self._silent, self._again_at = silent, self._clock() + SILENCE
                if not silent:
                    self._remember(node, found)

    def _remember(self, node: str, found: frozenset[str] | None) -> None:
        self._known.pop(node, None)
        if found is not None:
            self._known[node] = _Known(found, self._clock())
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    async def _named(self, node: str) -> frozenset[str]:
        """Return what a node shall have that this one shall have too. Raises ApiError."""
        try:
            found = NODE_CACHE.read(await self._api.get(NODES, node, cached=True))
        except (Missing, ValueError):
            return frozenset()
        own = self._own()
        return frozenset(name_of(key, each.mark) for key, each in found.spec.artifacts.items() if own.get(key) == each.mark)
