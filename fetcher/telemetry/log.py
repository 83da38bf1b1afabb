"""Lines for a container's log: one for each notable event, and a progress line every few seconds, also during a stall."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from fetcher.events import Event, LeaseWaiting, Retrying, Subscriber
from fetcher.telemetry.tally import Tally
from fetcher.telemetry.wording import notable, progress, waiting

EVERY = 5.0
"""Seconds between two progress lines. Fifteen minutes of fetching are 180 lines, still readable with `kubectl logs`."""


class LogLines:
    """A subscriber that prints lines. `tick` must be called about twice a second; it prints a progress line when one is due."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._tally = Tally(clock)
        self._due = clock() + EVERY
        self._retries: dict[str, float] = {}
        self._waiting: LeaseWaiting | None = None

    def __call__(self, event: Event) -> None:
        self._tally.add(event)
        before, self._waiting = self._waiting, event if isinstance(event, LeaseWaiting) else None
        if self._waiting is not None and before is None:
            self._print(waiting(self._waiting))
        if isinstance(event, Retrying) and not self._first_of_its_kind(event):
            return
        if (line := notable(event)) is not None:
            self._print(line)

    def tick(self) -> None:
        if self._clock() < self._due or self._tally.phase in ("starting", "done"):
            return
        self._due = self._clock() + EVERY
        if self._waiting is not None:
            self._print(waiting(self._waiting))
        else:
            self._print(progress(self._tally))

    def _first_of_its_kind(self, event: Retrying) -> bool:
        """Whether this reason was not printed lately: sixteen connections in one outage print one line, not sixteen."""
        now, before = self._clock(), self._retries.get(event.reason)
        if before is not None and now - before < EVERY:
            return False
        self._retries[event.reason] = now
        return True

    def _print(self, line: str) -> None:
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # a closed log does not stop the fetch


@contextmanager
def log_lines(stream: TextIO) -> Iterator[Subscriber]:
    """Provide a subscriber that prints lines. A thread ticks, so that lines appear also while the event loop waits."""
    lines, ended = LogLines(stream, clock=time.monotonic), threading.Event()

    def ticking() -> None:
        while not ended.wait(0.5):
            lines.tick()

    thread = threading.Thread(target=ticking, daemon=True, name="log")
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join(timeout=1.0)
