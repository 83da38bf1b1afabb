"""The maps of chunks that this server tells, each with a counter that grows with every change.

An epoch is the time from the first look at an artifact under one listing, as complete or not, to its end. Who has seen another
one is told everything.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping

from fetcher.cache.offer import Offer
from fetcher.planning.have import HEAD, LARGEST, HaveMap, Mark, room

_MOST = 4096
"""Artifacts whose epoch is kept. A forgotten one begins a new epoch."""


class Maps:
    """The map of each offered artifact, for any thread. `node`: the identity of the root, "" if it has none."""

    def __init__(self, node: str = "") -> None:
        self._node = node
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Epoch] = {}

    def of(self, offer: Offer, since: Mark | None = None) -> HaveMap:
        """Return the map, without the files that have not changed after `since`. Without any change its mark is `since`."""
        with self._lock:
            name = offer.key, offer.listing
            epoch = self._known.pop(name, None)
            if epoch is None or epoch.complete != offer.complete:
                epoch = _Epoch(complete=offer.complete)
            self._known[name] = epoch
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
            epoch.take(offer.held or {})
            at, files = epoch.since(since)
        return HaveMap(offer.listing, at, offer.chunk_size, complete=offer.complete, files=files, node=self._node)


class _Epoch:
    """Each change of a file's bitmap has a number. The files are in the order of their last changes."""

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        self._name = secrets.token_hex(8)
        self._counter = 1
        self._files: dict[str, tuple[bytes, int]] = {}
        self._last: Mapping[str, bytes] | None = None

    def take(self, held: Mapping[str, bytes]) -> None:
        """Take the bitmaps that are true now. A file that is no longer there has no chunk."""
        if held is self._last:
            return
        self._last = held
        for path in [*held, *(self._files.keys() - held.keys())]:
            bits, (before, _) = held.get(path), self._files.get(path, (None, 0))
            if bits is None:
                bits = bytes(len(before or b""))
            if bits != before:
                self._counter += 1
                self._files.pop(path, None)
                self._files[path] = bits, self._counter

    def since(self, since: Mark | None) -> tuple[Mark, dict[str, bytes]]:
        """Return the bitmaps that changed after `since`, the oldest changes first, as far as they fit; and their mark."""
        known = since.counter if since is not None and since.epoch == self._name else 0
        told: dict[str, bytes] = {}
        left = LARGEST - HEAD
        for path, (bits, counter) in self._files.items():
            if counter <= known:
                continue
            left -= room(path, 8 * len(bits))
            if left < 0:
                return Mark(self._name, known), told
            told[path], known = bits, counter
        return Mark(self._name, self._counter), told
