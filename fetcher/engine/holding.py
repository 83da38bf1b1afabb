"""Getting a lease, waiting for one, and keeping it alive while work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fetcher.errors import LeaseTimeout
from fetcher.events import LeaseWaiting, Subscriber, TakenOver
from fetcher.filesystem import storing
from fetcher.manifest import Manifest
from fetcher.store.beneath import make_directories
from fetcher.store.layout import base_of
from fetcher.store.lease import RENEW_EVERY, Lease, Observation, Watch, acquire, monotonic, observe, patience, take_over
from fetcher.store.placement import Placement
from fetcher.uncancelled import run_uncancelled

_POLL = 0.5
"""Seconds between two looks at somebody else's lease: a small file read, and the longest a waiter sleeps past the end."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds. `wait`: how long to wait for another owner, None without end. `stale`: None for what suits the filesystem."""

    wait: float | None
    stale: float | None


async def obtain(
    placement: Placement, *, times: LeaseTimes, published: Callable[[], Manifest | None], on_event: Subscriber
) -> Lease | Manifest:
    """The lease, or what somebody else published meanwhile. Raises LeaseTimeout, StoreError."""
    with storing("prepare the staging directory"):
        await run_uncancelled(make_directories, base_of(placement.staging), placement.staging)
    stale = times.stale or patience(placement.staging)
    watch, began = Watch(), monotonic()
    while True:
        lease = await run_uncancelled(_try, placement, watch, stale, on_event, undo=_give_back)
        try:
            manifest = published()
        except BaseException:
            _give_back(lease)
            raise
        # Also after winning: the owner before may have published just now.
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
                "(--lease-wait); run the same command again, or look at what that process does"
            )
        await asyncio.sleep(_POLL if lease is not None else 0)


def _try(placement: Placement, watch: Watch, stale: float, on_event: Subscriber) -> Lease | Observation | None:
    """A lease, or who holds it; None when that changed while looking."""
    directory = placement.staging / placement.lease_name
    with storing("take the lease"):
        seen = observe(directory)
        if seen is None:
            return acquire(placement.staging, placement.lease_name, stale=stale)
        if not seen.abandoned and watch.silence(seen, monotonic()) < stale:
            return seen
        lease = take_over(directory, seen, stale=stale)
        if lease is not None:
            try:
                on_event(TakenOver(seen.owner or "unknown", lease.inodes_reusable))
            except BaseException:
                give_up(lease)
                raise
        return lease


def give_up(lease: Lease) -> None:
    """Give the lease up. If nothing is staged, nothing stays behind; otherwise the next owner may continue at once."""
    try:
        empty = not any(path.is_file() for path in lease.data.rglob("*"))
    except OSError:
        empty = False  # the disk may be what failed
    if empty:
        lease.dissolve()
    else:
        lease.release()


def _give_back(tried: Lease | Observation | None) -> None:
    if isinstance(tried, Lease):
        give_up(tried)


@asynccontextmanager
async def kept_alive(lease: Lease, *, progress: Callable[[], tuple[int, int | None]]) -> AsyncIterator[None]:
    """Raise the lease's counter every few seconds. When that fails for too long the body is cancelled by LeaseLost."""
    every = min(RENEW_EVERY, lease.stale / 10)

    async def renew() -> None:
        while True:
            fetched, total = progress()
            try:
                # To its end: a renewal that is still being written would undo the `released` that follows.
                await run_uncancelled(partial(lease.renew, fetched=fetched, total=total))
            except OSError:
                lease.check()  # a hiccup of the volume is no loss until it lasts
            await asyncio.sleep(every)

    async with asyncio.TaskGroup() as group:
        renewing = group.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
