"""JSON lines for programs: `{"event": "Planned", "ts": ..., ...}`. Byte counts are summed over half a second."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TextIO

from fetcher.events import BytesDiscarded, BytesHashed, BytesLoaded, BytesReceived, ConnectionsActive, Event
from fetcher.telemetry.tally import Tally

EVERY = 0.5
"""Seconds between two progress lines."""


class JsonLines:
    def __init__(self, stream: TextIO, *, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._tally = Tally(clock)
        self._due = clock()

    def __call__(self, event: Event) -> None:
        self._tally.add(event)
        if isinstance(event, BytesReceived | BytesLoaded | BytesHashed | BytesDiscarded | ConnectionsActive):
            if self._clock() >= self._due:
                self._due = self._clock() + EVERY
                self._print("Progress", self._progress())
            return
        self._print(type(event).__name__, asdict(event))

    def _progress(self) -> dict[str, object]:
        tally = self._tally
        return {
            "phase": tally.phase,
            "done": tally.done,
            "total": tally.total,
            "fetched": tally.fetched,
            "hashed": tally.hashed,
            "rate": round(tally.rate()),
            "connections": tally.connections,
        }

    def _print(self, name: str, fields: dict[str, object]) -> None:
        try:
            self._stream.write(json.dumps({"event": name, "ts": round(time.time(), 3), **fields}) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return
