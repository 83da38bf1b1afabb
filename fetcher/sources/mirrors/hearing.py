"""What peers tell a fetch: who answers, what each has, and which of them is this node's own server. The swarm is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fetcher.errors import FetchError, NotFound, Transient
from fetcher.events import MirrorAvoided, PeersFound, Subscriber
from fetcher.peers import Neighbours, Wanted
from fetcher.planning.swarm import Swarm
from fetcher.sources.mirrors.fetch import Fetch, Peers

SAY = 2.0
"""Seconds between two lines about how many peers there are, at least."""


class Hearing:
    """Asks `peers` for their maps of `wanted`. `changed` is called when the swarm may decide otherwise than before."""

    def __init__(
        self, fetch: Fetch, wanted: Wanted, peers: Peers, swarm: Swarm, on_event: Subscriber, changed: Callable[[], None]
    ) -> None:
        self._node = fetch.node
        self._swarm = swarm
        self._emit = on_event
        self._changed = changed
        self._clock = asyncio.get_running_loop().time
        self._answered: dict[str, FetchError | None] = {}
        self._said: set[str] = set()
        self._mine: set[str] = set()
        self._found: PeersFound | None = None
        self._say_at = float("-inf")
        self._neighbours = Neighbours(
            peers.given,
            wanted,
            peers.asking(),
            me=fetch.node or f"{id(self)}",
            told=peers.told,
            secret=peers.secret,
            names=peers.names,
            heard=self._heard,
            failed=self._failed,
            gone=self._gone,
        )

    async def run(self) -> None:
        """Ask until this is cancelled."""
        await self._neighbours.run()

    def settle(self) -> None:
        """Begin as soon as every peer has answered: then nothing is to be waited for. Say once who was found."""
        now, swarm = self._clock(), self._swarm
        swarm.awaited = sum(map(_has_nothing, self._answered.values()))
        known = self._neighbours.complete and self._neighbours.peers <= self._answered.keys()
        maybe_mine = self._node is not None and swarm.me is None and any(map(_has_nothing, self._answered.values()))
        if known and not maybe_mine and now < swarm.began + swarm.settle:
            swarm.settle = now - swarm.began
        if now < swarm.began + swarm.settle:
            return
        found = PeersFound(len(swarm.peers), len(self._neighbours.peers - self._mine), swarm.me is not None)
        if found != self._found and now >= self._say_at:
            self._found, self._say_at = found, now + SAY
            self._emit(found)

    def _heard(self, peer: str, chunks: int, node: str) -> None:
        self._answered[peer] = None
        if node and node == self._node:
            self._mine.add(peer)
            self._swarm.gone(peer)
            if self._swarm.me is None:
                self._swarm.joined(node)
        else:
            self._swarm.heard(peer, chunks, self._clock(), node)
        self.settle()
        self._changed()

    def _failed(self, peer: str, error: FetchError) -> None:
        self._answered[peer] = error
        if not isinstance(error, Transient):
            self._swarm.gone(peer)
            if not _has_nothing(error) and peer not in self._said:
                self._said.add(peer)
                self._emit(MirrorAvoided(peer, error.message, None))
        self.settle()

    def _gone(self, peer: str) -> None:
        self._answered.pop(peer, None)
        self._swarm.gone(peer)


def _has_nothing(error: FetchError | None) -> bool:
    return isinstance(error, NotFound)
