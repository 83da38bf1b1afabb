"""Turns: a thread serves its coroutine until that has ended, whoever cancels it and whenever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from fetcher.streaming.turns import Running, Turns


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield a loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_work_runs_on_the_thread_that_serves(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns(loop)
    threads = []

    async def work() -> None:
        def one() -> int:
            threads.append(threading.current_thread())
            return 7

        assert await turns(one) == 7

    turns.start(work())
    turns.serve()
    assert threads == [threading.current_thread()]


def test_an_error_of_the_coroutine_is_raised(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns(loop)

    async def work() -> None:
        raise ValueError("no such file")

    turns.start(work())
    with pytest.raises(ValueError, match="no such file"):
        turns.serve()


def test_an_error_of_a_turn_is_raised_where_it_is_awaited(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns(loop)

    async def work() -> None:
        with pytest.raises(ZeroDivisionError):
            await turns(lambda: 1 // 0)

    turns.start(work())
    turns.serve()


def test_a_turn_that_is_asked_for_after_the_end_was_requested_is_taken(loop: asyncio.AbstractEventLoop) -> None:
    turns, running = Turns(loop), Running()
    taken: list[int] = []

    def turn() -> int:
        taken.append(1)
        return 1

    async def work() -> None:
        running.end()  # its cancellation arrives when this coroutine next waits, which is for the turn
        await turns(turn)

    with running.holding(turns):
        turns.start(work())
        with pytest.raises(CancelledError):
            turns.serve()
    assert taken == [1]


def test_a_thread_is_free_only_when_its_coroutine_has_ended(loop: asyncio.AbstractEventLoop) -> None:
    """Until then the coroutine can still write into the memory that it was given."""
    turns, running = Turns(loop), Running()
    ended = []

    async def work() -> None:
        running.end()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.append(True)

    with running.holding(turns):
        turns.start(work())
        with pytest.raises(CancelledError):
            turns.serve()
    assert ended


@pytest.mark.parametrize("before", [True, False], ids=["before it is held", "before it runs"])
def test_an_end_before_the_coroutine_runs_ends_it(loop: asyncio.AbstractEventLoop, before: bool) -> None:
    turns, running = Turns(loop), Running()

    async def work() -> None:
        await asyncio.sleep(60)

    if before:
        running.end()
    turns.start(work())
    with running.holding(turns):
        running.end()
        with pytest.raises(CancelledError):
            turns.serve()


def test_an_end_after_the_loop_is_closed_is_nothing() -> None:
    loop = asyncio.new_event_loop()
    turns, running = Turns(loop), Running()

    async def work() -> None: ...

    turns.start(work())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    with running.holding(turns):
        running.end()
        turns.serve()
