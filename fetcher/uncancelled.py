"""Waiting for work that cannot be cancelled: a thread uses a lease, a descriptor or a buffer until it ends.

A cancelled `asyncio.to_thread` returns at once and leaves its thread behind. Here the thread ends first, however often the
waiter is cancelled, and the first cancellation is raised afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Raised by work on a thread that was asked to end early, because its waiter was cancelled. Nobody receives it."""


async def run_uncancelled(
    call: Callable[..., T],
    *arguments: object,
    stop: Callable[[], None] | None = None,
    undo: Callable[[T], None] | None = None,
) -> T:
    """Run `call` on a thread and wait until it has ended. Raises what it raises, or CancelledError.

    At a cancellation `stop` asks `call` to end early, and `undo` takes back its result, which nobody will receive.
    """
    loop = asyncio.get_running_loop()
    # A future of the executor, no task: asyncio.run cancels every task at its end, and would take one for finished.
    working = loop.run_in_executor(None, call, *arguments)
    try:
        return await ended(working, stop=stop)
    except asyncio.CancelledError:
        if undo is not None and not working.cancelled() and working.exception() is None:
            await ended(loop.run_in_executor(None, undo, working.result()))
        raise


async def ended(working: asyncio.Future[T], *, stop: Callable[[], None] | None = None) -> T:
    """The result of `working`, a future of an executor, which is not cancelled. `stop` is called at the first cancellation."""
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
        working.exception()  # seen: the cancellation is raised in its place
    raise cancellation
