"""Guides a fetch in a swarm: which chunk comes next, of whom. Decides nothing itself: `planning.swarm` does.

::

    hearing    what peers tell, for the swarm
    turns      what the swarm decides, opened, and what became of it
    chunks     the swarm's numbers as ranges of files
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from random import Random

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.errors import ConfigurationError, FetchError
from fetcher.events import Subscriber, Warned
from fetcher.failure import one_error
from fetcher.peers import Wanted
from fetcher.planning.asks import Ask
from fetcher.planning.swarm import SETTLE, Swarm
from fetcher.sources.base import Opening
from fetcher.sources.mirrors.chunks import Chunks
from fetcher.sources.mirrors.fetch import Fetch, Peers
from fetcher.sources.mirrors.hearing import Hearing
from fetcher.sources.mirrors.supplied import why
from fetcher.sources.mirrors.turns import PeerTurn, Turns

RECOGNISED = 3.0
"""Seconds that a node with a served root waits for the answer of its own server, before it asks the origin like a node that
passes nothing on. The server looks at the journal each 0.1 s, and is asked again after a second."""
_LOOK = 0.25
"""Seconds between two questions of an idle connection: time alone changes who owns what."""


class Guiding:
    """The `sources.base.Guide` of one fetch. What no peer brings, `origin` opens."""

    def __init__(self, fetch: Fetch, peers: Peers, origin: Opening, on_event: Subscriber) -> None:
        wanted = Wanted(fetch.key, fetch.listing, fetch.shared)
        self._emit = on_event
        self._clock = asyncio.get_running_loop().time
        self._chunks = Chunks(wanted.sizes)
        self._in_parts = {each.path for each in fetch.files if each.ranges}
        self._changed: Callable[[], None] = _nothing
        me, settle = fetch.node if fetch.passed_on else None, RECOGNISED if fetch.node else SETTLE
        self.swarm = Swarm(me, wanted.layout, 1, Random(), self._clock(), settle=settle)  # noqa: S311
        self._turns = Turns(fetch, peers, self.swarm, origin)
        self._hearing = Hearing(fetch, wanted, peers, self.swarm, on_event, self._news)

    async def run(self) -> None:
        """Ask peers what they have, until this is cancelled. Without them the origin brings everything."""
        try:
            with one_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hearing.run())
                    while True:
                        await asyncio.sleep(_LOOK)
                        self._hearing.settle()
                        self._changed()
        except FetchError as error:
            self._emit(Warned(ConfigurationError.reason, f"no more peers are asked: {why(error)}"))

    def covers(self, path: str) -> bool:
        return path in self._chunks and path in self._in_parts

    def idle(self) -> bool:
        return self.swarm.alone(self._clock())

    def left(self, path: str, pending: Sequence[ByteRange]) -> None:
        self.swarm.left(*self._chunks.span(path), self._chunks.within(path, pending))

    def next(self, *, connections: int, longest: int, among: Collection[str] | None) -> PeerTurn | None:
        self.swarm.connections = connections
        chunks = -1 if among is None else sum(self._chunks.of(path) for path in among if path in self._chunks)
        now = self._clock()
        ask = self.swarm.next(now, among=chunks, most=max(1, longest // CHUNK_SIZE))
        return self._turn(self._turns.compared(ask, now)) if ask is not None else None

    def watched(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def turn_for(self, path: str, position: int) -> PeerTurn | None:
        """A turn for the chunk at `position`, for who has an order of its own; None if the origin is to be asked."""
        chunk = self._chunks.span(path)[0] + position // CHUNK_SIZE
        self.swarm.left(chunk, 1, 1 << chunk)
        ask = self.swarm.next(self._clock(), among=1 << chunk)
        if ask is not None and ask.supplier is not None:
            return self._turn(ask)
        if ask is not None:
            self.swarm.ended(ask)
        return None

    def disputed(self, path: str, suspects: Collection[str]) -> None:
        if path in self._chunks:
            self.swarm.disputed(self._chunks.of(path), suspects)

    def judged(self, suppliers: Collection[str], suspects: Collection[str], liars: Collection[str]) -> None:
        for name in suspects:
            self.swarm.cleared(name)
        for name in liars:
            self.swarm.banned(name)
        if not liars:
            self.swarm.verified(suppliers)

    def _news(self) -> None:
        self._changed()

    def _turn(self, ask: Ask) -> PeerTurn:
        return PeerTurn(self._turns, ask, *self._chunks.part(ask.chunk, ask.count))


def _nothing() -> None:
    pass
