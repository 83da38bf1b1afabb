"""Reads what is Ready again and again, one artifact after the other and slowly, and finds what a disk has lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fetcher import cache
from fetcher.errors import FetchError
from fetcher.events import BytesHashed, Event
from fetcher.uncancelled import Stopped, run_uncancelled


@dataclass(slots=True)
class Schedule:
    """When each artifact was last read, in seconds of the monotonic clock."""

    interval: float
    _read: dict[str, float] = field(default_factory=dict)

    def due(self, ready: Collection[str], *, now: float, chance: Callable[[], float]) -> str | None:
        """Return the artifact that has waited longest, if its interval is over.

        One that is new here counts as read at a random moment of the last interval, so that not all come due together. `chance`
        is from 0 to 1.
        """
        self._read = {key: self._read.get(key, now - self.interval * chance()) for key in ready}
        oldest = min(self._read, key=lambda key: (self._read[key], key), default=None)
        return oldest if oldest is not None and now - self._read[oldest] >= self.interval else None

    def next(self) -> float | None:
        """Return when the next artifact comes due; None without any."""
        return min(self._read.values()) + self.interval if self._read else None

    def read(self, key: str, *, now: float) -> None:
        """Record that `key` was read, or was fetched and verified, just now."""
        self._read[key] = now

    def hasten(self) -> None:
        """Make all of them due."""
        self._read = dict.fromkeys(self._read, float("-inf"))


@dataclass(frozen=True, slots=True)
class Damage:
    """What a scrub found wrong with one artifact."""

    entry: cache.Entry
    report: cache.VerifyReport

    @property
    def shown(self) -> str:
        path, problem = self.report.bad[0]
        more = f" and {len(self.report.bad) - 1} more files" if len(self.report.bad) > 1 else ""
        return f"{path} {problem}{more}"


async def scrub(root: Path, key: str, *, max_rate: float | None, count: Callable[[int], None]) -> Damage | None:
    """Read the artifact `key`, at most `max_rate` bytes a second, and return its damage.

    None: it is whole, or was removed or replaced meanwhile. `count` is called with bytes, on another thread. Cancellation ends
    it within a chunk.
    """
    stopping = threading.Event()
    return await run_uncancelled(partial(_scrub, root, key, max_rate, count, stopping.is_set), stop=stopping.set)


def _scrub(
    root: Path, key: str, max_rate: float | None, count: Callable[[int], None], stopped: Callable[[], bool]
) -> Damage | None:
    def heard(event: Event) -> None:
        if stopped():
            raise Stopped
        if isinstance(event, BytesHashed):
            count(event.bytes)

    try:
        entry = cache.named(str(root / key), lambda: root).entry
        mark = entry.summary.manifest
        report = cache.verify(entry, full=False, on_event=heard, max_rate=max_rate)
        if not report.bad or _mark(root, key) != mark:
            return None
    except (FetchError, Stopped):
        return None
    return Damage(entry, report)


def _mark(root: Path, key: str) -> Mapping[str, int]:
    return cache.named(str(root / key), lambda: root).entry.summary.manifest
