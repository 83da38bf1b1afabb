"""Makes room in a bounded cache root before the first byte of a fetch, and before a repair or an unpacking writes a file.

Deciding, promising the space and renaming victims away happens under a short root-wide lease, so that fetches that start
together do not exceed the limit together. Deleting happens after it. The promise is a field of the fetch's own heartbeat: it
ends with its lease.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from pathlib import Path

from fetcher.events import Evicted, Subscriber
from fetcher.filesystem import free_bytes, sync_filesystem
from fetcher.planning.eviction import Kept
from fetcher.store import ballast
from fetcher.store.accounting import MARGIN, Account
from fetcher.store.archives import sweep_useless, useless
from fetcher.store.contender import short_lease
from fetcher.store.eviction import Doomed, Keeping, closed, doom, restore
from fetcher.store.keyed import replaced_versions, sweep_old
from fetcher.store.layout import Root
from fetcher.store.lease import Lease, default_stale_time
from fetcher.store.limits import MIN_IDLE, CacheLimits, refuse_looser, refuse_unenforceable
from fetcher.store.occupancy import ROOM, Occupancy, built_bytes, occupancy
from fetcher.values import dataclass

_UNDER_WAY = 60.0
"""Seconds to wait for evictions that other processes have begun, before more artifacts are chosen."""
_LOOKS = 50
"""Looks at the free space after a deletion, 0.1 s apart: btrfs needs one or two."""
STEP = 1024 * 1024 * 1024
"""Bytes that are promised at a time to files of unknown size."""


@dataclass(frozen=True, slots=True)
class Room:
    """A fetch or repair that needs room in `root`. `lease` is that of its key.

    `own` reads the limits of the root: they can change meanwhile. `asked`: those of the fetch, which may only be stricter.
    `growing`: the sizes of some files are unknown, so room is made in steps. `ranks`: key → rank in eviction, 0 for others.
    """

    root: Path
    key: str
    lease: Lease
    own: Callable[[], CacheLimits]
    asked: CacheLimits
    growing: bool
    stopped: Callable[[], bool]
    on_event: Subscriber
    ranks: Mapping[str, int] = field(default_factory=dict)

    def make(self, needed: int) -> None:
        """Make room for `needed` more bytes, and promise them to the fetch. Does nothing without a limit. Blocks.

        Raises OutOfSpace or CacheBusy, and then nothing is evicted; ConfigurationError, NewerFormat, UsageError, LeaseLost,
        Stopped, OSError.
        """
        own = self.own()
        limits = own if own.bounded else self.asked
        if not limits.bounded:
            return
        needed += STEP if self.growing else 0
        min_idle = idle_time(own, self.asked)
        refuse_unenforceable(self.root, replace(limits, min_idle=own.min_idle or self.asked.min_idle))
        refuse_looser(own, self.asked, self.root)
        until = time.monotonic() + _UNDER_WAY
        while (doomed := self._decide(needed, limits, min_idle, patient=time.monotonic() < until)) is None:
            sweep_old(self.root, grace=min_idle)
            sweep_useless(self.root)
            time.sleep(0.2)
        for each in doomed:
            each.delete()
            self.on_event(Evicted(each.entry.key, each.entry.summary.size))
        if doomed:
            _await_space(self.root, needed)
        ballast.load(self.root)

    def grow(self) -> None:
        """Make room for another step if the files of unknown size have nearly used up the last one. Raises as `make`."""
        if built_bytes(self.lease.directory) + STEP // 2 > self.lease.reserved:
            self.make(0)

    def _decide(self, needed: int, limits: CacheLimits, min_idle: float, *, patient: bool) -> list[Doomed] | None:
        """Promise the space and rename the victims away. None: more space will be free soon, so look again."""
        staging = Root(self.root).staging
        stale = default_stale_time(staging)
        with short_lease(staging, ROOM, stale=stale, stopped=self.stopped) as ruling:
            seen = occupancy(
                self.root, now=ruling.moment(), min_idle=min_idle, without=(ROOM, self.key, self.lease.directory.name)
            )
            occupied = built_bytes(self.lease.directory)
            account = Account(self.root, self.key, seen, needed=needed, occupied=occupied, ranks=self.ranks)
            if patient and account.shortfall(limits.bounds(self.root)) and self._soon(seen, ruling.moment(), min_idle):
                return None
            # Before anything is renamed away: a lease that is lost by now must cost no artifact. A refusal ends the fetch, and
            # the promise with it.
            self.lease.reserve(occupied + needed)
            return self._doom(account, limits, min_idle, ruling, stale)

    def _soon(self, seen: Occupancy, now: float, min_idle: float) -> bool:
        """Whether others delete an artifact just now, or there is what may go before any artifact: replaced versions, and
        what killed processes left of no use."""
        return seen.evicting or bool(replaced_versions(self.root, now=now, grace=min_idle) or useless(self.root))

    def _doom(self, account: Account, limits: CacheLimits, min_idle: float, ruling: Lease, stale: float) -> list[Doomed]:
        """Rename away as many victims as are needed, all or none."""
        kept: dict[str, Kept] = {}
        while True:
            ruling.keep()
            choose = partial(account.victims, limits.bounds(self.root), self.asked.bounds(self.root))
            victims = closed(self.root, account.seen.artifacts, choose, kept)
            entries = [account.seen.artifacts[each.key] for each in victims]
            keeping = Keeping(self.root, ruling.moment(), min_idle)
            doomed, found = doom(self.root, entries, keeping, stale=stale, keep=ruling.keep)
            if not found:
                return doomed
            restore(doomed)
            kept |= found


def _await_space(root: Path, needed: int) -> None:
    """Wait a little until deleted blocks are free: btrfs frees them when it commits its transaction."""
    for _ in range(_LOOKS):
        free = free_bytes(root)
        if free is None or free >= needed + MARGIN:
            return
        sync_filesystem(root)
        time.sleep(0.1)


def idle_time(own: CacheLimits, asked: CacheLimits) -> float:
    """Return the seconds that an artifact must be unused: of the flag, else of the root, else the default."""
    chosen = asked.min_idle if asked.min_idle is not None else own.min_idle
    return MIN_IDLE if chosen is None else chosen
