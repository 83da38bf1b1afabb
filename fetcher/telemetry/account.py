"""One run of a command in numbers: the sums of its events and its outcome.

These metrics are common to all commands; each command adds its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fetcher.artifact import ORIGIN
from fetcher.errors import BadResponse, LocalIOError, RateLimited, Stalled, Unreachable
from fetcher.events import (
    BytesDiscarded,
    BytesLoaded,
    BytesReceived,
    ConnectionsActive,
    Disputed,
    Event,
    FileVerified,
    Finished,
    MirrorBanned,
    Mismatched,
    Planned,
    Retrying,
)
from fetcher.telemetry.exposition import Metric, Sample
from fetcher.telemetry.tally import Phase, Tally
from fetcher.values import dataclass
from fetcher.version import VERSION

_RETRIED = sorted({kind.reason for kind in (BadResponse, LocalIOError, RateLimited, Stalled, Unreachable)})
"""Reasons for a retry. Each is exported as 0 from the start: Prometheus misses the first step of a counter that begins at 1."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a command: `reason` is `Completed` or the error's reason word, `seconds` the run time."""

    reason: str
    retryable: bool
    seconds: float


class Account:
    """A subscriber that counts events. Other threads read it at any time, so its values are replaced, never mutated."""

    def __init__(self, program: str, phases: Sequence[Phase], *, clock: Callable[[], float], now: Callable[[], float]) -> None:
        """`phases` are the possible ones of the command. `clock` is monotonic, `now` the time of day, both in seconds."""
        self._program = program
        self._phases = phases
        self._clock = clock
        self._now = now
        self._began = clock()
        self._started = self._moved = now()
        self.tally = Tally(clock)
        self.retries: Mapping[str, int] = dict.fromkeys(_RETRIED, 0)
        self.received = self.loaded = self.discarded = 0
        self.supplied: Mapping[str, int] = {ORIGIN: 0}
        """The received bytes by supplier."""
        self.banned: frozenset[str] = frozenset()
        self.mismatches = 0
        self.verified_files = 0
        self.verified_bytes = 0
        self.finished: Finished | None = None
        self.result: Result | None = None

    def __call__(self, event: Event) -> None:
        self.tally.add(event)
        if not isinstance(event, Retrying | ConnectionsActive):
            self._moved = self._now()
        match event:
            case Retrying():
                self.retries = {**self.retries, event.reason: self.retries.get(event.reason, 0) + 1}
            case BytesReceived():
                self.received += event.bytes
                self.supplied = {**self.supplied, event.supplier: self.supplied.get(event.supplier, 0) + event.bytes}
            case BytesLoaded():
                self.loaded += event.bytes
            case BytesDiscarded():
                self.discarded += event.bytes
            case Planned():  # again if the source has changed
                self.verified_files = self.verified_bytes = 0
            case Finished():
                self.finished = event
            case _:
                self._compared(event)

    def _compared(self, event: Event) -> None:
        """Count what came of a comparison with a digest."""
        match event:
            case Mismatched() | Disputed():
                self.mismatches += 1
            case MirrorBanned():
                self.banned |= {event.mirror}
            case FileVerified() if event.checked:
                self.verified_files += 1
                self.verified_bytes += event.size

    def end(self, reason: str, *, retryable: bool) -> None:
        self.result = Result(reason, retryable, self._clock() - self._began)
        self._moved = self._now()

    @property
    def phase(self) -> str:
        """The present phase; `done` or `failed` after the command has ended."""
        if self.result is None:
            return self.tally.phase
        return "done" if self.result.reason == "Completed" else "failed"

    def metrics(self) -> list[Metric]:
        """Return the metrics common to all commands; each name begins with the program's name."""
        result = self.result
        seconds = result.seconds if result else self._clock() - self._began
        ended = [Sample(1, {"reason": result.reason, "retryable": str(result.retryable).lower()})] if result else None
        return [
            self._gauge("build_info", "1, with the version as a label.", [Sample(1, {"version": VERSION})]),
            self._gauge("phase", "1 for the present phase, 0 for the others.", self._each_phase()),
            self._gauge("started_timestamp_seconds", "Unix time when the command began.", round(self._started, 3)),
            self._gauge("progress_timestamp_seconds", "Unix time of the last progress.", round(self._moved, 3)),
            self._gauge("duration_seconds", "Run time in seconds, up to the end of the command.", round(seconds, 3)),
            self._gauge("result", "1, with the outcome as labels; absent until the command ends.", ended),
        ]

    def _each_phase(self) -> list[Sample]:
        now = self.phase
        return [Sample(phase == now, {"phase": phase}) for phase in (*self._phases, "failed")]

    def _gauge(self, name: str, help_text: str, value: float | Sequence[Sample] | None) -> Metric:
        return Metric(f"{self._program}_{name}", "gauge", help_text, value)
