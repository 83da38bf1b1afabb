"""Waiting: for the first end of what belongs to one process together, and for an event with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Run all until one ends, and raise its error. The others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.wait(tasks)


async def is_set_within(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for `event`, so many seconds at most, and return whether it was set.

    In Python 3.11 `asyncio.wait_for` loses a cancellation that comes in the moment in which what it waits for is done: a loop
    that waits for changes with it goes on after its process was told to end. A timeout loses none.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
