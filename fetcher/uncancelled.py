"""Work on threads that cancellation must wait for: a thread uses a lease, a descriptor or a buffer until it ends.

A cancelled `asyncio.to_thread` returns at once while its thread still runs. `run_uncancelled` waits for the thread, however
often it is cancelled, and raises the first cancellation afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Raised by work on a thread when `stop` asks it to end early. Only the thread sees it: the waiter is cancelled."""


async def run_uncancelled(
    call: Callable[..., T],
    *arguments: object,
    stop: Callable[[], None] | None = None,
    undo: Callable[[T], None] | None = None,
) -> T:
    """Run `call` on a thread, wait until it has ended, and return its result. Raises its exception, or CancelledError.

    On cancellation `stop` asks `call` to end early, and `undo` reverses a result that the caller will not receive.
    """
    loop = asyncio.get_running_loop()
    # A future of the executor, not a task: asyncio.run cancels all tasks at its end and would consider this one finished.
    working = loop.run_in_executor(None, call, *arguments)
    try:
        return await ended(working, stop=stop)
    except asyncio.CancelledError:
        if undo is not None and not working.cancelled() and working.exception() is None:
            await ended(loop.run_in_executor(None, undo, working.result()))
        raise


async def ended(working: asyncio.Future[T], *, stop: Callable[[], None] | None = None) -> T:
    """Wait for `working`, a future of an executor, without cancelling it; return its result. Calls `stop` when cancelled.

    Raises the first CancelledError after the work has ended.
    """
    cancellation: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            if cancellation is None and stop is not None:
                stop()
            cancellation = cancellation or error
    if cancellation is None:
        return working.result()
    if not working.cancelled():
        working.exception()  # mark it as retrieved: the cancellation is raised instead
    raise cancellation


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `work` beside the block, and cancel it at the block's end. An error of `work` cancels the block."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work())
        try:
            yield
        finally:
            working.cancel()
