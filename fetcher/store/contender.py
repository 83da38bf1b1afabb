"""One contender for one lease. It looks at the lease again and again, and takes it once it is free or its owner is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fetcher.errors import NO_SPACE, LeaseTimeout
from fetcher.store import ballast
from fetcher.store.beneath import make_directories
from fetcher.store.layout import base_of
from fetcher.store.lease import Lease, Observation, Watch, acquire, monotonic, observe, take_over
from fetcher.uncancelled import Stopped

_POLL = 0.05
"""Seconds between two looks at a short lease."""
_PATIENCE = 600.0
"""Seconds to wait for a short lease. Its owner renews it, so an owner that died is replaced much earlier."""


class Contender:
    """Wants the lease `name` in `staging`. `stale`: seconds without a heartbeat after which an owner is replaced."""

    def __init__(self, staging: Path, name: str, *, stale: float, evicting: bool = False) -> None:
        self._staging = staging
        self._directory = staging / name
        self._stale = stale
        self._evicting = evicting
        self._watch = Watch()
        self.previous: Observation | None = None
        """The owner from whom the lease was taken over."""

    def attempt(self) -> Lease | Observation | None:
        """Return the lease, or its present owner; None if it changed meanwhile. Raises OSError, NewerFormat.

        On a full filesystem the root gives up its ballast first.
        """
        try:
            return self._attempt()
        except OSError as error:
            if error.errno not in NO_SPACE or not ballast.give_up(base_of(self._directory)):
                raise
            return self._attempt()

    def _attempt(self) -> Lease | Observation | None:
        self.previous = None
        seen = observe(self._directory)
        if seen is None:
            return acquire(self._staging, self._directory.name, stale=self._stale, evicting=self._evicting)
        if not seen.abandoned and self._watch.silence(seen, monotonic()) < self._stale:
            return seen
        self.previous = seen
        return take_over(self._directory, seen, stale=self._stale, evicting=self._evicting)

    def give_back(self, lease: Lease) -> None:
        """Give back the lease that the last `attempt` returned. The data of an unfinished fetch stays resumable."""
        if self.previous is None:
            lease.dissolve()
        else:
            lease.release()


@contextmanager
def short_lease(staging: Path, name: str, *, stale: float, stopped: Callable[[], bool]) -> Iterator[Lease]:
    """Wait for the lease `name`, and hold it during the block. The block renews it with `Lease.keep`.

    Blocks. Raises LeaseTimeout, Stopped, OSError.
    """
    make_directories(base_of(staging), staging)
    contender, began = Contender(staging, name, stale=stale), monotonic()
    while not isinstance(lease := contender.attempt(), Lease):
        if stopped():
            raise Stopped
        if monotonic() - began > _PATIENCE:
            raise LeaseTimeout(f"another process has held {staging / name} for {_PATIENCE:.0f} s; check that process")
        time.sleep(_POLL)
    try:
        yield lease
    finally:
        lease.dissolve()
