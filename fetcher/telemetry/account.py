"""One run of a command in numbers: what its events add up to, and how it ended.

These are the metrics of every command that has an end; what else it counts, each command adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fetcher.errors import BadResponse, LocalIOError, RateLimited, Stalled, Unreachable
from fetcher.events import (
    BytesDiscarded,
    BytesLoaded,
    BytesReceived,
    ConnectionsActive,
    Event,
    FileVerified,
    Finished,
    Mismatched,
    Planned,
    Retrying,
)
from fetcher.telemetry.exposition import Metric, Sample
from fetcher.telemetry.tally import Phase, Tally
from fetcher.version import VERSION

_RETRIED = sorted({kind.reason for kind in (BadResponse, LocalIOError, RateLimited, Stalled, Unreachable)})
"""What is tried again. Told from the beginning on: of a counter that begins at 1, Prometheus does not see the first step."""


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended: `Completed`, or the reason word of its error."""

    reason: str
    retryable: bool
    seconds: float


class Account:
    """A subscriber. Other threads look at it at any moment, so what it holds is replaced, never changed."""

    def __init__(self, program: str, phases: Sequence[Phase], *, clock: Callable[[], float], now: Callable[[], float]) -> None:
        """`phases`: those the command may come through. `clock` is monotonic, `now` is the time of day, both in seconds."""
        self._program = program
        self._phases = phases
        self._clock = clock
        self._now = now
        self._began = clock()
        self._started = self._moved = now()
        self.tally = Tally(clock)
        self.retries: Mapping[str, int] = dict.fromkeys(_RETRIED, 0)
        self.received = self.loaded = self.discarded = 0
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
            case BytesLoaded():
                self.loaded += event.bytes
            case BytesDiscarded():
                self.discarded += event.bytes
            case Mismatched():
                self.mismatches += 1
            case Planned():  # perhaps for the second time, the source having changed
                self.verified_files = self.verified_bytes = 0
            case FileVerified() if event.checked:
                self.verified_files += 1
                self.verified_bytes += event.size
            case Finished():
                self.finished = event

    def end(self, reason: str, *, retryable: bool) -> None:
        self.result = Result(reason, retryable, self._clock() - self._began)
        self._moved = self._now()

    @property
    def phase(self) -> str:
        """`done` and `failed` are known only when the command has ended."""
        if self.result is None:
            return self.tally.phase
        return "done" if self.result.reason == "Completed" else "failed"

    def metrics(self) -> list[Metric]:
        """Those of any command, their names beginning with the program's."""
        result = self.result
        seconds = result.seconds if result else self._clock() - self._began
        ended = [Sample(1, {"reason": result.reason, "retryable": str(result.retryable).lower()})] if result else None
        return [
            self._gauge("build_info", "1, labelled with the version.", [Sample(1, {"version": VERSION})]),
            self._gauge("phase", "1 for what goes on now, 0 for the rest.", self._each_phase()),
            self._gauge("started_timestamp_seconds", "When it began.", round(self._started, 3)),
            self._gauge("progress_timestamp_seconds", "When it last got any further.", round(self._moved, 3)),
            self._gauge("duration_seconds", "Since it began, until it ended.", round(seconds, 3)),
            self._gauge("result", "1, labelled with how it ended; absent until then.", ended),
        ]

    def _each_phase(self) -> list[Sample]:
        now = self.phase
        return [Sample(phase == now, {"phase": phase}) for phase in (*self._phases, "failed")]

    def _gauge(self, name: str, help_text: str, value: float | Sequence[Sample] | None) -> Metric:
        return Metric(f"{self._program}_{name}", "gauge", help_text, value)
