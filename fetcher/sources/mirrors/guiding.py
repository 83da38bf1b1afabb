"""Guides a fetch in a swarm: which chunk comes next, of whom. Decides nothing itself: `planning.swarm` does.

Whoever asks a peer for a chunk does so by a turn: it opens the range at that peer, and tells the swarm what became of it.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from random import Random
from urllib.parse import quote

from fetcher.artifact import CHUNK_SIZE, ORIGIN, ByteRange, RemoteFile
from fetcher.errors import ConfigurationError, FetchError, MirrorFailed, NotFound, SourceError, Transient
from fetcher.events import MirrorAvoided, PeersFound, Subscriber, Warned
from fetcher.peers import Addresses, Neighbours, Secret, Told, Wanted
from fetcher.planning.asks import Ask
from fetcher.planning.ranges import chunk_count
from fetcher.planning.suppliers import Suppliers
from fetcher.planning.swarm import SETTLE, Swarm
from fetcher.quantities import ceil_div
from fetcher.sources.base import Body, Opening, supplier_of
from fetcher.sources.mirrors.mirror import opened
from fetcher.sources.mirrors.supplied import SuppliedBody, why
from fetcher.transport.client import HttpTransport
from fetcher.values import dataclass

RECOGNISED = 3.0
"""Seconds that a node with a served root waits for the answer of its own server, before it asks the origin like a node that
passes nothing on. The server looks at the journal each 0.1 s, and is asked again after a second."""
_LOOK = 0.25
"""Seconds between two questions of an idle connection: time alone changes who owns what."""
SAY = 2.0
"""Seconds between two lines about how many peers there are, at least."""
_LONGEST_WAIT = 64.0
SPARING = 100
"""Chunks for each peer, from which on the origin may be asked for one only to learn its rate: a hundredth, if all do."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """What is fetched: all `files`, under the cache `key`. `node`: the identity of this node's root. `passed_on`: whether a
    server is known to pass on what is fetched."""

    key: str
    files: Sequence[RemoteFile]
    listing: str
    node: str | None
    passed_on: bool

    @property
    def shared(self) -> dict[str, int]:
        """The bytes of each file that may come from peers, in an order that all nodes have: those with a digest."""
        return {each.path: each.size for each in sorted(self.files, key=_path) if each.digests and each.size is not None}


@dataclass(frozen=True, slots=True)
class Peers:
    """Where peers are and how they are asked: for maps by what `asking` returns, by `transport` for chunks."""

    given: Addresses
    told: Told | None
    secret: Secret | None
    asking: Callable[[], HttpTransport]
    transport: HttpTransport


class Guiding:
    """The Guide of one fetch. What no peer brings, `origin` opens."""

    def __init__(self, fetch: Fetch, peers: Peers, origin: Opening, on_event: Subscriber) -> None:
        self._fetch = fetch
        self._peers = peers
        self._origin = origin
        self._emit = on_event
        self._wanted = Wanted(fetch.key, fetch.listing, fetch.shared)
        self._by_path = {each.path: each for each in fetch.files}
        self._paths = [path for path, size in fetch.shared.items() if size]
        self._starts: list[int] = []
        count = 0
        for path in self._paths:
            self._starts.append(count)
            count += chunk_count(fetch.shared[path])
        self._number = {path: number for number, path in enumerate(self._paths)}
        self._clock = asyncio.get_running_loop().time
        me = fetch.node if fetch.passed_on else None
        self.swarm = Swarm(me, self._wanted.layout, 1, Random(), self._clock(), settle=RECOGNISED if fetch.node else SETTLE)  # noqa: S311
        self._rates = Suppliers(())
        self._answered: dict[str, FetchError | None] = {}
        self._said: set[str] = set()
        self._mine: set[str] = set()
        self._found: PeersFound | None = None
        self._say_at = float("-inf")
        self._changed: Callable[[], None] = _nothing
        self._neighbours = Neighbours(
            peers.given,
            self._wanted,
            peers.asking(),
            me=fetch.node or f"{id(self)}",
            told=peers.told,
            secret=peers.secret,
            heard=self._heard,
            failed=self._failed,
            gone=self._gone,
        )

    async def run(self) -> None:
        """Ask peers what they have, until this is cancelled. Without them the origin brings everything."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._neighbours.run())
                while True:
                    await asyncio.sleep(_LOOK)
                    self._settle()
                    self._changed()
        except* FetchError as errors:
            error = errors.exceptions[0]
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            self._emit(Warned(ConfigurationError.reason, f"no more peers are asked: {why(error)}"))

    # The Guide

    def covers(self, path: str) -> bool:
        file = self._by_path.get(path)
        return path in self._number and file is not None and file.ranges

    def idle(self) -> bool:
        return self.swarm.alone(self._clock())

    def left(self, path: str, pending: Sequence[ByteRange]) -> None:
        start, count = self._span(path)
        chunks = 0
        for each in pending:
            first, stop = each.start // CHUNK_SIZE, ceil_div(each.stop, CHUNK_SIZE)
            chunks |= ((1 << (stop - first)) - 1) << (start + first)
        self.swarm.left(start, count, chunks)

    def next(self, *, connections: int, longest: int, among: Collection[str] | None) -> PeerTurn | None:
        self.swarm.connections = connections
        chunks = -1 if among is None else sum(self._chunks(path) for path in among if path in self._number)
        now = self._clock()
        ask = self.swarm.next(now, among=chunks, most=max(1, longest // CHUNK_SIZE))
        if ask is None:
            return None
        return self._turn(self._compared(ask, now))

    def watched(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def turn_for(self, path: str, position: int) -> PeerTurn | None:
        """A turn for the chunk at `position`, for who has an order of its own; None if the origin is to be asked."""
        chunk = self._span(path)[0] + position // CHUNK_SIZE
        self.swarm.left(chunk, 1, 1 << chunk)
        ask = self.swarm.next(self._clock(), among=1 << chunk)
        if ask is not None and ask.supplier is not None:
            return self._turn(ask)
        if ask is not None:
            self.swarm.ended(ask)
        return None

    def _compared(self, ask: Ask, now: float) -> Ask:
        """The same, or a chunk of it from the origin: nobody else knows how fast that is."""
        usable = sum(peer.left_until <= now for peer in self.swarm.peers.values())
        self._rates.sampled = usable <= 1 or self._wanted.layout.chunks >= SPARING * usable
        if ask.supplier is None:
            self._rates.sample(now)
        elif self._rates.sampled and self._rates.sample(now):
            return self.swarm.instead(ask, now)
        return ask

    # Trust

    def disputed(self, path: str, supplier: str) -> None:
        if path in self._number:
            self.swarm.disputed(self._chunks(path), supplier)

    def judged(self, path: str, suppliers: Collection[str], suspects: Collection[str], liars: Collection[str]) -> None:
        for name in suspects:
            self.swarm.cleared(name)
        for name in liars:
            self.swarm.banned(name)
        if not liars:
            self.swarm.verified(suppliers)

    # What peers tell

    def _heard(self, peer: str, chunks: int, node: str) -> None:
        self._answered[peer] = None
        if node and node == self._fetch.node:
            self._mine.add(peer)
            self.swarm.gone(peer)
            if self.swarm.me is None:
                self.swarm.joined(node)
        else:
            self.swarm.heard(peer, chunks, self._clock(), node)
        self._settle()
        self._changed()

    def _failed(self, peer: str, error: FetchError) -> None:
        self._answered[peer] = error
        if not isinstance(error, Transient):
            self.swarm.gone(peer)
            if not _has_nothing(error) and peer not in self._said:
                self._said.add(peer)
                self._emit(MirrorAvoided(peer, error.message, None))
        self._settle()

    def _gone(self, peer: str) -> None:
        self._answered.pop(peer, None)
        self.swarm.gone(peer)

    def _settle(self) -> None:
        """Begin as soon as every peer has answered: then nothing is to be waited for. Say once who was found."""
        now, swarm = self._clock(), self.swarm
        swarm.awaited = sum(map(_has_nothing, self._answered.values()))
        known = self._neighbours.complete and self._neighbours.peers <= self._answered.keys()
        maybe_mine = self._fetch.node is not None and swarm.me is None and any(map(_has_nothing, self._answered.values()))
        if known and not maybe_mine and now < swarm.began + swarm.settle:
            swarm.settle = now - swarm.began
        if now < swarm.began + swarm.settle:
            return
        found = PeersFound(len(swarm.peers), len(self._neighbours.peers - self._mine), swarm.me is not None)
        if found != self._found and now >= self._say_at:
            self._found, self._say_at = found, now + SAY
            self._emit(found)

    # Turns

    def _turn(self, ask: Ask) -> PeerTurn:
        number = bisect_right(self._starts, ask.chunk) - 1
        path = self._paths[number]
        first = ask.chunk - self._starts[number]
        stop = min((first + ask.count) * CHUNK_SIZE, self._wanted.sizes[path])
        return PeerTurn(self, ask, path, ByteRange(first * CHUNK_SIZE, stop))

    @asynccontextmanager
    async def opened(self, ask: Ask, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        """Open a range of `file` as `ask` says. Raises MirrorFailed if a peer does not bring it, and errors of the origin."""
        with self._noted(ask, file.path):
            if ask.supplier is None:
                async with self._origin.open(file, byte_range) as body:
                    yield SuppliedBody(body, supplier_of(body), partial(self._report, ask))
            else:
                peer, wanted = ask.supplier, byte_range or ByteRange(0, file.size or 0)
                address = f"{peer}/v1/{self._fetch.key}/{self._fetch.listing}/{quote(file.path)}"
                credentials = self._peers.secret.shown_to(peer) if self._peers.secret is not None else None
                async with opened(self._peers.transport, address, file, wanted, credentials) as body:
                    yield SuppliedBody(body, peer, partial(self._report, ask))

    def _report(self, ask: Ask, count: int) -> None:
        """Record what has come. Raises MirrorFailed if the body shall end, because its peer or its connection is slow."""
        name, now = ORIGIN if ask.supplier is None else ask.supplier, self._clock()
        self._rates.came(name, count, now)
        if self._rates.ends(name, now):
            if (until := self._rates.avoided_until(name)) > now:
                self.swarm.leave(name, until)
            news = self._rates.news(name)
            raise MirrorFailed(news or "another supplier takes over", mirror=name, notable=bool(news))
        if self.swarm.overdue(ask, now):
            self.swarm.late(ask, now)
            raise MirrorFailed("it takes longer than others", mirror=name)

    @contextmanager
    def _noted(self, ask: Ask, path: str) -> Iterator[None]:
        """Tell the swarm how the block ended. Raises MirrorFailed for an error of a peer, whatever it is."""
        name = ORIGIN if ask.supplier is None else ask.supplier
        self._rates.add(name)
        self._rates.opened(name, self._clock())
        try:
            yield
        except MirrorFailed:
            self.swarm.ended(ask)
            raise
        except asyncio.CancelledError:
            self.swarm.failed(ask, self._clock())  # the engine gave up a connection that trickled
            raise
        except (SourceError, ConfigurationError, OSError) as error:
            news = False
            if isinstance(error, Transient) and error.retry_after is not None:
                self.swarm.busy(ask, self._clock() + min(error.retry_after, _LONGEST_WAIT))
            else:
                news = self.swarm.failed(ask, self._clock())
            if ask.supplier is None:
                raise
            raise MirrorFailed(why(error), mirror=ask.supplier, path=path, notable=news) from error
        else:
            self.swarm.done(ask, self._clock())
        finally:
            self._rates.ended(name, self._clock())

    def over(self, ask: Ask) -> None:
        self.swarm.ended(ask)

    def _span(self, path: str) -> tuple[int, int]:
        number = self._number[path]
        return self._starts[number], chunk_count(self._wanted.sizes[path])

    def _chunks(self, path: str) -> int:
        start, count = self._span(path)
        return ((1 << count) - 1) << start


class PeerTurn:
    """A Turn: chunks of one file, of the supplier that the swarm has chosen."""

    def __init__(self, guiding: Guiding, ask: Ask, path: str, part: ByteRange) -> None:
        self._guiding = guiding
        self._ask = ask
        self.path = path
        self.part = part
        self.supplier = ORIGIN if ask.supplier is None else ask.supplier

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._guiding.opened(self._ask, file, byte_range)

    def over(self) -> None:
        self._guiding.over(self._ask)


def _nothing(*_: object) -> None:
    pass


def _path(file: RemoteFile) -> str:
    return file.path


def _has_nothing(error: FetchError | None) -> bool:
    return isinstance(error, NotFound)
