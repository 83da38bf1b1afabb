"""Lines for a container's log: one for each notable event, one every few seconds on how far it is, also while nothing moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fetcher.events import Event, LeaseWaiting, Retrying, Subscriber
from fetcher.telemetry.tally import Tally
from fetcher.telemetry.wording import notable, progress, waiting

EVERY = 5.0
"""Seconds between two lines. A quarter of an hour of fetching is 180 lines, which `kubectl logs` shows at a glance."""


class LogLines:
    """`tick` is called now and then; it prints when a line is due."""

    def __init__(self, stream: TextIO, *, every: float = EVERY) -> None:
        self._stream = stream
        self._every = every
        self._tally = Tally(time.monotonic)
        self._due = time.monotonic() + every
        self._retries: dict[str, float] = {}
        self._waiting: LeaseWaiting | None = None

    def __call__(self, event: Event) -> None:
        self._tally.add(event)
        self._waiting = event if isinstance(event, LeaseWaiting) else None
        if isinstance(event, Retrying) and not self._first_of_its_kind(event):
            return
        if (line := notable(event)) is not None:
            self._print(line)

    def tick(self) -> None:
        if time.monotonic() < self._due or self._tally.phase in ("starting", "done"):
            return
        self._due = time.monotonic() + self._every
        if self._waiting is not None:
            self._print(waiting(self._waiting))
        elif self._tally.phase == "resolving":
            self._print("still asking the source")
        else:
            self._print(progress(self._tally))

    def _first_of_its_kind(self, event: Retrying) -> bool:
        """Sixteen connections that meet one outage are one line every few seconds, not sixteen."""
        now = time.monotonic()
        if now - self._retries.get(event.reason, -self._every) < self._every:
            return False
        self._retries[event.reason] = now
        return True

    def _print(self, line: str) -> None:
        try:
            self._stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads the log: no reason to stop


@contextmanager
def log_lines(stream: TextIO) -> Iterator[Subscriber]:
    """A thread ticks, so that lines come also while the event loop waits."""
    lines, ended = LogLines(stream), threading.Event()

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
