"""Signals during work on an event loop: the first one cancels and leaves staging resumable, the second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from typing import Any

from fetcher.command.signals import SIGNALS, Interrupted, is_ignored

_CLEANUP = 1.5
"""Seconds for cleaning up. A hanging disk must not keep the process past the promised two seconds; a kill loses no more."""


def run_interruptibly(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` on a new event loop and return its result. Raises Interrupted, without waiting for hanging threads."""
    try:
        import asyncio  # with uvloop a third of a hit's time; a hit needs neither

        from fetcher.transport.tls import TlsEventLoop
    except BaseException:
        work.close()  # otherwise Python prints a warning after the last line
        raise

    caught: list[int] = []

    async def guarded() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            if caught:
                loop.stop()  # the second signal does not wait for the cleanup
            caught.append(number)
            loop.call_later(_CLEANUP, loop.stop)
            if task is not None:
                task.cancel()

        for number in SIGNALS:
            if not is_ignored(number):
                loop.add_signal_handler(number, stop, number)
        return await work

    before = {number: signal.getsignal(number) for number in SIGNALS}
    runner = asyncio.Runner(loop_factory=TlsEventLoop)
    try:
        return runner.run(guarded())
    finally:
        # Closing waits for threads, and one of them may hang in a call to the disk or to a resolver.
        if caught:
            raise Interrupted(caught[0])
        runner.close()
        for number, handler in before.items():
            signal.signal(number, handler)  # a closed loop's handler does nothing, and the command may continue
