"""Asks one peer for its map of chunks, again and again, and never for longer or more than a map takes.

A peer may lie, in every way. Its answer is bounded in bytes and seconds, and must be a map of the listing that is wanted. Each
answer replaces or changes what it said before. A peer that fails is left alone, each time for twice as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NoReturn

from fetcher.artifact import CHUNK_SIZE
from fetcher.errors import BadResponse, FetchError, NotFound, Transient
from fetcher.peers.secret import Secret
from fetcher.planning.have import HEAD, LARGEST, HaveMap, room
from fetcher.planning.ownership import Layout
from fetcher.planning.peer import SILENCE, every
from fetcher.planning.ranges import chunk_count
from fetcher.quantities import doubled
from fetcher.transport.client import HttpTransport

WAIT = int(SILENCE / 2)
"""Seconds that a peer may wait for a change: half of the silence after which it owns nothing."""
ANSWER = WAIT + 10.0
"""Seconds for a whole answer: a map takes a few packets."""
FIRST, LONGEST = 1.0, 60.0
"""Seconds to leave a peer alone after its first failure, and at most."""
BEGINNING, NOTHING_YET = 0.5, 2.0
"""The same for a peer that only has nothing of the artifact: it may be about to begin."""


class Wanted:
    """An artifact that is fetched: its key, the digest of its listing, and the bytes of each file that may come from peers."""

    def __init__(self, key: str, listing: str, sizes: Mapping[str, int]) -> None:
        self.key = key
        self.listing = listing
        self.sizes = sizes

    @cached_property
    def layout(self) -> Layout:
        """The numbers of its chunks, as `planning.swarm` has them."""
        return Layout(self.listing, tuple(chunk_count(size) for size in self.sizes.values()))

    @cached_property
    def largest(self) -> int:
        """Bytes of the largest map of it."""
        return min(LARGEST, HEAD + sum(room(path, chunk_count(size)) for path, size in self.sizes.items()))

    def read(self, data: bytes) -> HaveMap:
        """Read a map. Raises BadResponse if it is none, or of something else."""
        try:
            have = HaveMap.from_bytes(data, self.sizes)
        except ValueError as error:
            raise BadResponse(f"a peer sends no map of chunks: {error}") from error
        if have.listing != self.listing or have.chunk_size != CHUNK_SIZE:
            raise BadResponse("a peer sends the map of another listing than it was asked for")
        return have


class Asking:
    """Asks peers over `transport`. `secret` is shown to each of them.

    `heard(peer, chunks, node)` is called with each answer: the chunks that the peer has, as one number, and the identity of its
    node, if it tells one. `failed(peer, error)`: with each failure.
    """

    def __init__(
        self,
        wanted: Wanted,
        transport: HttpTransport,
        *,
        secret: Secret | None,
        heard: Callable[[str, int, str], None],
        failed: Callable[[str, FetchError], None],
    ) -> None:
        self._wanted = wanted
        self._transport = transport
        self._secret = secret
        self._heard = heard
        self._failed = failed
        self._followed = 0

    async def follow(self, peer: str) -> NoReturn:
        """Ask the peer at a base URL until this is cancelled. The more peers are followed, the more seldom each is asked."""
        self._followed += 1
        try:
            await self._ask_again_and_again(peer)
        finally:
            self._followed -= 1

    async def _ask_again_and_again(self, peer: str) -> NoReturn:
        clock, known, failures = asyncio.get_running_loop().time, None, 0
        while True:
            began = clock()
            try:
                told = await self._told(peer, known)
            except FetchError as error:
                known, failures = None, failures + 1
                self._failed(peer, error)
                await asyncio.sleep(_pause(error, failures))
                continue
            known, failures = known.followed_by(told) if known is not None else told, 0
            self._heard(peer, known.as_number(self._wanted.sizes), known.node)
            await asyncio.sleep(began + every(self._followed) - clock())

    async def _told(self, peer: str, known: HaveMap | None) -> HaveMap:
        """Ask once. `known`: what the peer told last. Raises FetchError."""
        since = f"&since={known.at}&wait={WAIT}" if known is not None else ""
        url, what = f"{peer}/v1/{self._wanted.key}/have?listing={self._wanted.listing}{since}", "a map of chunks"
        credentials = self._secret.shown_to(peer) if self._secret is not None else None
        try:
            async with (
                asyncio.timeout(ANSWER),
                self._transport.request(url, credentials=credentials, redirects=0) as answer,
            ):
                if answer.status != 200:
                    raise await answer.refusal(what=what)
                return self._wanted.read(await answer.read(self._wanted.largest, what=what))
        except TimeoutError:
            raise BadResponse(f"a peer takes more than {ANSWER:.0f} s for {what}") from None


def _pause(error: FetchError, failures: int) -> float:
    """Seconds to leave a peer alone after so many failures in a row, the last of them `error`."""
    asked = error.retry_after if isinstance(error, Transient) and error.retry_after is not None else 0.0
    nothing_yet = isinstance(error, NotFound)
    usual = doubled(BEGINNING, failures, NOTHING_YET) if nothing_yet else doubled(FIRST, failures, LONGEST)
    return min(LONGEST, max(asked, usual))
