"""What a signal does to a command: it raises Interrupted in the main thread, once.

A handler stands from the start: pid 1 of a container does not even die of a SIGTERM that it has no handler for.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread, as SIGINT raises KeyboardInterrupt by itself."""
    for number in SIGNALS:
        if not is_ignored(number):
            signal.signal(number, _interrupt)


def is_ignored(number: signal.Signals) -> bool:
    """As nohup has it."""
    return signal.getsignal(number) is signal.SIG_IGN


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    # A second one would interrupt the tidying up: what follows takes moments, and ends by os._exit.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
