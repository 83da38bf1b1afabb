"""What a signal does: the first one cancels and leaves staging resumable, the second one ends that at once.

A handler stands from the start: pid 1 of a container does not even die of a SIGTERM that it has no handler for.
"""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_TIDYING = 1.5
"""Seconds. A disk that hangs must not keep the process past the two seconds promised; a kill leaves as much to resume."""


class Interrupted(BaseException):
    """A signal came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread, as SIGINT raises KeyboardInterrupt by itself."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _interrupt)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    # A second one would interrupt the tidying up: what follows takes moments, and ends by os._exit.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def run_interruptibly(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` on an event loop of its own. Raises Interrupted, then without waiting for threads that hang."""
    import asyncio  # with uvloop a third of a hit's time, and a hit needs neither

    from fetcher.transport.tls import Loop

    caught: list[int] = []

    async def guarded() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            if caught:
                loop.stop()  # whoever asks twice does not wait for the tidying
            caught.append(number)
            loop.call_later(_TIDYING, loop.stop)
            if task is not None:
                task.cancel()

        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, number)
        return await work

    runner = asyncio.Runner(loop_factory=Loop)
    try:
        return runner.run(guarded())
    finally:
        # Closing waits for threads, and one of them may hang in a call of the disk or of a resolver.
        if caught:
            raise Interrupted(caught[0])
        runner.close()
