"""Of the connections that wait to be written, one whose bytes are next in their file comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fetcher.engine import turns
from fetcher.engine.turns import Turns


class Queue:
    """One turn at a time, and the names of those that got one."""

    def __init__(self) -> None:
        self.turns = Turns(1)
        self.order: list[str] = []

    def join(self, name: str, is_next: Callable[[], bool] = lambda: False, *, times: int = 1) -> asyncio.Task[None]:
        return asyncio.create_task(self._write(name, is_next, times))

    async def _write(self, name: str, is_next: Callable[[], bool], times: int) -> None:
        for _ in range(times):
            await self.turns.take(is_next)
            self.order.append(name)
            try:
                await asyncio.sleep(0)
            finally:
                self.turns.give_back()


async def test_the_one_that_is_next_comes_before_those_that_came_earlier() -> None:
    queue = Queue()
    await asyncio.gather(queue.join("first"), queue.join("ahead"), queue.join("next", lambda: True))
    assert queue.order == ["first", "next", "ahead"]


async def test_without_one_that_is_next_the_earliest_comes_first() -> None:
    queue = Queue()
    await asyncio.gather(*(queue.join(name) for name in "abc"))
    assert queue.order == ["a", "b", "c"]


async def test_one_that_stays_next_goes_on() -> None:
    queue = Queue()
    await asyncio.gather(queue.join("next", lambda: True, times=3), queue.join("ahead"))
    assert queue.order == ["next", "next", "next", "ahead"]


async def test_who_is_next_is_asked_when_a_turn_is_free() -> None:
    queue, position = Queue(), ["first"]
    await asyncio.gather(
        queue.join("first"), queue.join("ahead", lambda: "ahead" in position), queue.join("next", lambda: len(queue.order) == 1)
    )
    assert queue.order == ["first", "next", "ahead"]


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_WAIT", -1.0)
    queue = Queue()
    await asyncio.gather(queue.join("first"), queue.join("ahead"), queue.join("next", lambda: True))
    assert queue.order == ["first", "ahead", "next"]


@pytest.mark.parametrize("moments", [1, 2, 3, 4], ids=lambda moments: f"{moments}-moments-later")
async def test_one_that_is_cancelled_holds_up_nobody(moments: int) -> None:
    queue = Queue()
    first, cancelled, last = queue.join("first"), queue.join("cancelled", lambda: True), queue.join("last")
    for _ in range(moments):
        await asyncio.sleep(0)
    cancelled.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(first, last)
        await queue.join("another")
    assert [name for name in queue.order if name != "cancelled"] == ["first", "last", "another"]
    with pytest.raises(asyncio.CancelledError):
        await cancelled
