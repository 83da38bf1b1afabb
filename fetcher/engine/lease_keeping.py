"""Acquires a lease, waits for one, and renews it during the fetch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fetcher.errors import LeaseTimeout
from fetcher.events import LeaseWaiting, Subscriber, TakenOver
from fetcher.filesystem import storing
from fetcher.manifest import Manifest
from fetcher.store.beneath import make_directories
from fetcher.store.contender import Contender
from fetcher.store.layout import base_of
from fetcher.store.lease import RENEW_EVERY, Lease, Observation, default_stale_time, monotonic
from fetcher.store.placement import Placement
from fetcher.uncancelled import beside, run_uncancelled
from fetcher.values import dataclass

_POLL = 0.5
"""Seconds between two reads of another owner's lease. A waiter notices the end of the lease at most this late."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. `wait`: maximum wait for another owner, None for no limit. `stale`: None for the default of the filesystem."""

    wait: float | None
    stale: float | None


async def acquire_or_wait(
    placement: Placement, *, times: LeaseTimes, published: Callable[[], Manifest | None], on_event: Subscriber
) -> Lease | Manifest:
    """Return the lease, or the manifest that another owner published meanwhile. Raises LeaseTimeout, StoreError."""
    with storing("prepare the staging directory"):
        await run_uncancelled(make_directories, base_of(placement.staging), placement.staging)
    stale = times.stale or default_stale_time(placement.staging)
    contender, began = Contender(placement.staging, placement.lease_name, stale=stale), monotonic()
    while True:
        lease = await run_uncancelled(_try, contender, on_event, undo=_give_back)
        try:
            manifest = published()
        except BaseException:
            _give_back(lease)
            raise
        # Also with the lease in hand: the previous owner may have published just before.
        if manifest is not None:
            if isinstance(lease, Lease):
                lease.dissolve()
            return manifest
        if isinstance(lease, Lease):
            return lease
        waited = monotonic() - began
        if lease is not None:
            on_event(LeaseWaiting(lease.owner or "unknown", waited, lease.fetched, lease.total))
        if times.wait is not None and waited >= times.wait:
            raise LeaseTimeout(
                f"{lease.owner if lease else 'another process'} is still fetching this artifact after {waited:.0f} s "
                "(--lease-wait); run the same command again, or check that process"
            )
        await asyncio.sleep(_POLL if lease is not None else 0)


def _try(contender: Contender, on_event: Subscriber) -> Lease | Observation | None:
    """Return the lease, or an observation of its owner; None if the owner changed meanwhile. Blocks."""
    with storing("acquire the lease"):
        lease = contender.attempt()
    if isinstance(lease, Lease) and contender.previous is not None:
        try:
            on_event(TakenOver(contender.previous.owner or "unknown", lease.inodes_reusable))
        except BaseException:
            give_up(lease)
            raise
    return lease


def give_up(lease: Lease) -> None:
    """Release the lease, so that the next owner can resume immediately. Remove its directory if nothing is staged."""
    try:
        empty = not any(path.is_file() for path in lease.data.rglob("*"))
    except OSError:
        empty = False  # the disk itself may have failed
    if empty:
        lease.dissolve()
    else:
        lease.release()


def _give_back(tried: Lease | Observation | None) -> None:
    if isinstance(tried, Lease):
        give_up(tried)


@asynccontextmanager
async def kept_alive(lease: Lease, *, progress: Callable[[], tuple[int, int | None]]) -> AsyncIterator[None]:
    """Renew the lease every few seconds. If renewals fail for too long, LeaseLost cancels the body."""
    every = min(RENEW_EVERY, lease.stale / 10)

    async def renew() -> None:
        while True:
            fetched, total = progress()
            try:
                # Not cancelled: a renewal that is still being written would undo a later `released`.
                await run_uncancelled(partial(lease.renew, fetched=fetched, total=total))
            except OSError:
                lease.check()  # a short failure of the volume does not lose the lease
            await asyncio.sleep(every)

    async with beside(renew):
        yield
