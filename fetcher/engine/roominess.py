"""The room of one operation in a bounded cache, and more of it while a file of unknown size grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fetcher.events import Subscriber
from fetcher.filesystem import storing
from fetcher.settings import Settings
from fetcher.store.lease import Lease
from fetcher.store.limits import CacheLimits, read_limits
from fetcher.store.room import Room
from fetcher.uncancelled import beside, run_uncancelled

_LOOK_EVERY = 0.2
"""Seconds between two looks at the size. A step is 1 GiB and begins half a step early: 2.5 GiB/s would overtake it."""


def room_of(
    root: Path,
    key: str,
    lease: Lease,
    settings: Settings,
    *,
    limited: bool,
    growing: bool,
    stopped: Callable[[], bool],
    on_event: Subscriber,
) -> Room:
    """Return the room of what is built under `lease` for the artifact `key` of `root`. `limited`: `root` is a cache root;
    other directories have no limits of their own."""
    own = partial(read_limits, root) if limited else CacheLimits
    asked = CacheLimits(settings.max_size, settings.min_free, settings.min_idle) if limited else CacheLimits()
    return Room(root, key, lease, own, asked, growing, stopped, on_event, settings.eviction_ranks)


@asynccontextmanager
async def kept_roomy(room: Room, *, stop: Callable[[], None]) -> AsyncIterator[None]:
    """Ask for another step of room in time. A refusal cancels the body. `stop` ends a wait for room. Raises StoreError."""
    if not room.growing:
        yield
        return

    def grow() -> None:
        with storing("make room in the cache"):
            room.grow()

    async def look() -> None:
        while True:
            await run_uncancelled(grow, stop=stop)
            await asyncio.sleep(_LOOK_EVERY)

    async with beside(look):
        yield
