"""A waiter waits for work that uses a lease or a descriptor, however often the waiter is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fetcher.uncancelled import ended, run_uncancelled


class Work:
    """A call that lasts until `may_end` is set, and records its beginning and end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(30)
        self.ended.set()
        return "a lease"


async def cancelled(task: asyncio.Task[str], *, times: int) -> None:
    for _ in range(times):
        task.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()


async def test_the_result_is_returned() -> None:
    assert await run_uncancelled(max, 2, 3) == 3


async def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_uncancelled(divmod, 1, 0)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancelled_waiter_waits_for_the_end_of_the_work(times: int) -> None:
    work = Work()
    stopped: list[int] = []
    undone: list[str] = []
    task = asyncio.create_task(run_uncancelled(work, stop=lambda: stopped.append(1), undo=undone.append))
    await asyncio.to_thread(work.begun.wait)

    await cancelled(task, times=times)
    work.may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended.is_set()
    assert stopped == [1], "asked once to end early"
    assert undone == ["a lease"], "taken back, since nobody received it"


@pytest.mark.parametrize("times", [1, 2])
async def test_an_undo_is_not_cancelled(times: int) -> None:
    undoing = Work()
    done: list[tuple[str, str]] = []
    task = asyncio.create_task(run_uncancelled(lambda: "a lease", undo=lambda lease: done.append((lease, undoing()))))
    task.cancel()  # before the work has begun: there is nothing to undo
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == []

    first = Work()
    task = asyncio.create_task(run_uncancelled(first, undo=lambda lease: done.append((lease, undoing()))))
    await asyncio.to_thread(first.begun.wait)
    await cancelled(task, times=1)
    first.may_end.set()
    await asyncio.to_thread(undoing.begun.wait)
    await cancelled(task, times=times)
    undoing.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [("a lease", "a lease")]


async def test_a_cancellation_comes_before_the_error_of_the_work() -> None:
    may_end = threading.Event()

    def fail() -> None:
        may_end.wait(30)
        raise OSError("the disk")

    task = asyncio.create_task(run_uncancelled(fail))
    await asyncio.sleep(0.01)
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_end_of_asyncio_run_does_not_end_the_wait() -> None:
    """asyncio.run cancels all tasks when an exception ends it. The work of the thread is still unfinished then."""
    work = Work()

    async def main() -> None:
        waiting = asyncio.create_task(run_uncancelled(work))
        await asyncio.to_thread(work.begun.wait)
        asyncio.get_running_loop().call_later(0.05, work.may_end.set)
        waiting.add_done_callback(lambda _: seen.append(work.ended.is_set()))
        raise KeyboardInterrupt

    seen: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert seen == [True]


async def test_a_finished_future_returns_immediately() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(7)
    assert await ended(future) == 7
