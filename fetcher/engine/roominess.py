"""Makes more room in a bounded cache while a file of unknown size grows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fetcher.filesystem import storing
from fetcher.store.room import Room
from fetcher.uncancelled import beside, run_uncancelled

_LOOK_EVERY = 0.2
"""Seconds between two looks at the size. A step is 1 GiB and begins half a step early: 2.5 GiB/s would overtake it."""


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
