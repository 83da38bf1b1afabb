"""What belongs to one process ends together, whatever each part waits for."""

from __future__ import annotations

import asyncio

import pytest

from cluster.together import first_of, is_set_within


async def test_a_wait_that_is_told_to_end_as_its_event_comes_ends() -> None:
    """The event is set, and before the wait goes on with that, it is cancelled: as when changes and SIGTERM come together."""
    changed = asyncio.Event()

    async def looping() -> None:
        while True:
            changed.clear()
            await is_set_within(changed, 60.0)

    loop = asyncio.ensure_future(looping())
    await asyncio.sleep(0)
    changed.set()
    await asyncio.sleep(0)
    loop.cancel()
    done, _ = await asyncio.wait([loop], timeout=20)
    loop.cancel()
    assert done


@pytest.mark.parametrize("passes", range(6))
async def test_all_end_in_whatever_pass_of_the_loop_one_does(passes: int) -> None:
    changed = asyncio.Event()

    async def changing() -> None:
        while True:
            changed.set()
            await asyncio.sleep(0)

    async def looping() -> None:
        while True:
            changed.clear()
            await is_set_within(changed, 60.0)

    async def ending() -> None:
        for _ in range(passes):
            await asyncio.sleep(0)

    all_together = asyncio.ensure_future(first_of(ending(), changing(), looping(), looping()))
    done, _ = await asyncio.wait([all_together], timeout=20)
    assert done


async def test_whether_it_was_set_is_told() -> None:
    event = asyncio.Event()
    assert not await is_set_within(event, 0.01)
    event.set()
    assert await is_set_within(event, None)
