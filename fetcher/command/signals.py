"""What a signal does to a command: it raises Interrupted in the main thread, once.

A handler stands from the start: pid 1 of a container does not even die of a SIGTERM that it has no handler for.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AGAIN = 0.01
"""Seconds until a signal whose exception was lost is sent once more."""


class Interrupted(BaseException):
    """A signal came; `number` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True)
class Arrival:
    """Raises Interrupted when a signal comes. `number` is which one came, None before.

    An import turns exceptions of some moments into a RuntimeError, hence `number`; and a weak reference's callback, which
    every import has, can raise nothing at all: Python only reports what it raised, to `lost`.
    """

    number: int | None = None
    _heeded: list[signal.Signals] = field(default_factory=list)

    def heed(self) -> None:
        self._heeded = [number for number in SIGNALS if not is_ignored(number)]
        self._listen()
        sys.unraisablehook = self.lost

    def lost(self, report: UnraisableHookArgs) -> None:
        """Python's hook. What a signal raised is not reported: the signal is sent once more."""
        if not isinstance(report.exc_value, Interrupted):
            sys.__unraisablehook__(report)
            return
        self._listen()
        number = report.exc_value.number
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    def _listen(self) -> None:
        for number in self._heeded:
            signal.signal(number, self._come)

    def _come(self, number: int, _: FrameType | None) -> NoReturn:
        # A second one would interrupt the tidying up: what follows takes moments, and ends by os._exit.
        ignore_signals()
        self.number = number
        raise Interrupted(number)


def raise_on_signals() -> Arrival:
    """From now on a signal raises Interrupted in the main thread, as SIGINT raises KeyboardInterrupt by itself."""
    arrival = Arrival()
    arrival.heed()
    return arrival


def ignore_signals() -> None:
    """From now on: the command has ended, or is about to."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def is_ignored(number: signal.Signals) -> bool:
    """As nohup has it."""
    return signal.getsignal(number) is signal.SIG_IGN
