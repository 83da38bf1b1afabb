"""The maps of chunks that this server tells, each with a counter that grows when the artifact changes."""

from __future__ import annotations

import secrets
import threading

from fetcher.cache.offering import Offer
from fetcher.planning.have import HaveMap, Mark

_MOST = 4096
"""Artifacts whose counter is kept. A forgotten one starts again above all others."""


class Maps:
    """The map of each offered artifact, for any thread. A published artifact is complete until another takes its place."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._counter = 0
        self._known: dict[str, tuple[str, int]] = {}

    def of(self, offer: Offer) -> HaveMap:
        with self._lock:
            listing, counter = self._known.get(offer.key, ("", 0))
            if listing != offer.listing:
                self._counter += 1
                counter = self._counter
                self._known.pop(offer.key, None)
                self._known[offer.key] = offer.listing, counter
                while len(self._known) > _MOST:
                    del self._known[next(iter(self._known))]
        return HaveMap(offer.listing, Mark(self._epoch, counter), offer.chunk_size, complete=True)
