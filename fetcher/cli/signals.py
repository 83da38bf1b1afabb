"""Signals during work on an event loop: the first one cancels and leaves staging resumable, the second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from fetcher.command.signals import SIGNALS, Interrupted, is_ignored

_CLEANUP = 1.5
"""Seconds for cleaning up. A hanging disk must not keep the process past the promised two seconds; a kill loses no more."""


@dataclass(slots=True)
class _Inbox:
    """The signals from before an event loop is made until after it is closed; `tell` is called for each.

    Its handler raises nothing: an exception in an import, or in the middle of making a loop, leaves halves behind.
    """

    received: list[int] = field(default_factory=list)
    tell: Callable[[], object] = field(default=lambda: None)

    def receive(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        self.tell()


def run_interruptibly(work: Coroutine[Any, Any, Any]) -> Any:
    """Run `work` on a new event loop and return its result. Raises Interrupted, without waiting for hanging threads."""
    inbox = _Inbox()
    before = {number: signal.signal(number, inbox.receive) for number in SIGNALS if not is_ignored(number)}
    try:
        return _run(work, inbox)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if inbox.received:
            raise Interrupted(inbox.received[0])


def _run(work: Coroutine[Any, Any, Any], inbox: _Inbox) -> Any:
    try:
        import asyncio  # with uvloop a third of a hit's time; a hit needs neither

        from fetcher.transport.tls import TlsEventLoop
    except BaseException:
        work.close()  # otherwise Python prints a warning after the last line
        raise

    async def guarded() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            if len(inbox.received) > 1:
                loop.stop()  # the second signal does not wait for the cleanup
            elif task is not None and not task.cancelling():
                loop.call_later(_CLEANUP, loop.stop)
                task.cancel()

        inbox.tell = lambda: loop.call_soon_threadsafe(stop)
        try:
            if inbox.received:
                stop()
            return await work
        finally:
            inbox.tell = lambda: None

    runner = asyncio.Runner(loop_factory=TlsEventLoop)
    try:
        return runner.run(guarded())
    finally:
        # Closing waits for threads, and one of them may hang in a call to the disk or to a resolver.
        if not inbox.received:
            runner.close()
