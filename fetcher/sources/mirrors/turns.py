"""Opens what the swarm has decided to ask for, tells it what became of that, and compares its suppliers with the origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from urllib.parse import quote

from fetcher.artifact import ByteRange, RemoteFile
from fetcher.errors import ConfigurationError, MirrorFailed, SourceError, Transient
from fetcher.planning.asks import Ask
from fetcher.planning.suppliers import Suppliers
from fetcher.planning.swarm import Swarm
from fetcher.sources.base import Body, Opening, supplier_of
from fetcher.sources.mirrors.fetch import Fetch, Peers
from fetcher.sources.mirrors.mirror import opened
from fetcher.sources.mirrors.supplied import SuppliedBody, why

_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 64.0
"""Seconds that who wants to be asked later is left alone, whatever it says. Who says 0 would be asked all the time."""
SPARING = 100
"""Chunks for each peer, from which on the origin may be asked for one only to learn its rate: a hundredth, if all do."""


class Turns:
    """What is asked of peers of one fetch, and of `origin`."""

    def __init__(self, fetch: Fetch, peers: Peers, swarm: Swarm, origin: Opening) -> None:
        self._fetch = fetch
        self._peers = peers
        self.swarm = swarm
        self._origin = origin
        self._rates = Suppliers(())
        self._clock = asyncio.get_running_loop().time

    def compared(self, ask: Ask, now: float) -> Ask:
        """The same, or a chunk of it from the origin: nobody else knows how fast that is."""
        usable = sum(peer.left_until <= now for peer in self.swarm.peers.values())
        self._rates.sampled = usable <= 1 or self.swarm.layout.chunks >= SPARING * usable
        if ask.supplier is None:
            self._rates.sample(now)
        elif self._rates.sampled and self._rates.sample(now):
            return self.swarm.instead(ask, now)
        return ask

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
        name, now = ask.name, self._clock()
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
        name = ask.name
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
                now = self._clock()
                self.swarm.busy(ask, now, now + min(max(error.retry_after, _SHORTEST_WAIT), _LONGEST_WAIT))
            else:
                news = self.swarm.failed(ask, self._clock())
            if ask.supplier is None:
                raise
            raise MirrorFailed(why(error), mirror=ask.supplier, path=path, notable=news) from error
        else:
            self.swarm.done(ask, self._clock())
        finally:
            self._rates.ended(name, self._clock())


class PeerTurn:
    """A `sources.base.Turn`: chunks of one file, of the supplier that the swarm has chosen."""

    def __init__(self, turns: Turns, ask: Ask, path: str, part: ByteRange) -> None:
        self._turns = turns
        self._ask = ask
        self.path = path
        self.part = part
        self.supplier = ask.name

    def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AbstractAsyncContextManager[Body]:
        return self._turns.opened(self._ask, file, byte_range)

    def over(self) -> None:
        self._turns.swarm.ended(self._ask)
