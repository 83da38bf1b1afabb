"""Signal handling of a command: a signal raises Interrupted in the main thread, once.

Handlers are installed at the start: pid 1 of a container ignores a SIGTERM for which it has no handler.
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
_RESEND_DELAY = 0.01
"""Seconds until a signal is sent again because its exception was lost."""


class Interrupted(BaseException):
    """The signal `number` was received."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass(slots=True)
class Arrival:
    """The signal that was received: `number`, or None before. Its handler raises Interrupted.

    Python can change or lose an exception that a handler raises. During an import it may become a RuntimeError, so `number`
    keeps the signal. In a weak reference's callback, which every import has, Python only passes the exception to `lost`.
    """

    number: int | None = None
    _heeded: list[signal.Signals] = field(default_factory=list)

    def heed(self) -> None:
        self._heeded = [number for number in SIGNALS if not is_ignored(number)]
        self._listen()
        sys.unraisablehook = self.lost

    def lost(self, report: UnraisableHookArgs) -> None:
        """Send the signal again if its exception was lost; report other exceptions (`sys.unraisablehook`)."""
        if not isinstance(report.exc_value, Interrupted):
            sys.__unraisablehook__(report)
            return
        self._listen()
        number = report.exc_value.number
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _RESEND_DELAY)

    def _listen(self) -> None:
        for number in self._heeded:
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _: FrameType | None) -> NoReturn:
        # A second signal would interrupt the cleanup, which takes moments and ends with os._exit.
        ignore_signals()
        self.number = number
        raise Interrupted(number)


def raise_on_signals() -> Arrival:
    """Make signals raise Interrupted in the main thread from now on, as SIGINT raises KeyboardInterrupt by default."""
    arrival = Arrival()
    arrival.heed()
    return arrival


def ignore_signals() -> None:
    """Ignore signals from now on: the command has ended, or is about to."""
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def is_ignored(number: signal.Signals) -> bool:
    """Return whether the process ignores this signal, as under nohup."""
    return signal.getsignal(number) is signal.SIG_IGN
