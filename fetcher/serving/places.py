"""The places for uploads of one server, and who may have one.

A caller may hold as many as are free besides: half of them alone, each of two a third, each of three a quarter. So nobody can
take all of them, for as long as slow readers may hold a place, and whoever comes finds one until there are as many callers as
places. (The dynamic threshold of Choudhury and Hahne, 1998, for the buffers of switches.)
"""

from __future__ import annotations

import threading
from collections import Counter

PATIENCE = 0.1
"""Seconds to wait for a place: who has all its bytes may ask for the next before the thread that sent them is done."""
WAITING = 2
"""Callers that wait so at a time: each has a thread of those that tell the others something."""


class Places:
    """`most` places, for any thread. `patience` in seconds."""

    def __init__(self, most: int, *, patience: float = PATIENCE) -> None:
        self._free = most
        self._held: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._waiting = 0
        self._patience = patience

    def take(self, caller: str) -> bool:
        """Take a place for `caller`. Return whether it may have one now, or in a moment."""
        with self._changed:
            if not self._may(caller) and self._waiting < WAITING:
                self._waiting += 1
                self._changed.wait_for(lambda: self._may(caller), self._patience)
                self._waiting -= 1
            if not self._may(caller):
                return False
            self._free -= 1
            self._held[caller] += 1
            return True

    def give_back(self, caller: str) -> None:
        """Give a place back that `caller` has taken."""
        with self._changed:
            self._free += 1
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
            self._changed.notify_all()

    def _may(self, caller: str) -> bool:
        return self._held[caller] < self._free
