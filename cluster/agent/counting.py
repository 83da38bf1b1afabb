"""What the agent counts, and its metrics. Other threads read them at any time, so values are replaced and never mutated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from cluster.agent.states import Room, Survey, Warmth
from cluster.resources import Observed, Phase
from fetcher.artifact import ORIGIN
from fetcher.events import BytesReceived, Event, Evicted
from fetcher.telemetry.exposition import Metric, Sample
from fetcher.version import VERSION


class Counts:
    """A subscriber of the engine's events."""

    def __init__(self) -> None:
        self.serving: Callable[[], list[Metric]] = list
        """The metrics of the server for peers."""
        self.from_peers = 0
        self.fetched = self.evictions = self.scrubbed = self.repaired = self.status_writes = self.surveys = 0
        self.written_at: float | None = None
        self.survey = Survey()
        self.observed: Mapping[str, Observed] = {}
        self.room = Room()
        self.warmth: Mapping[str, Warmth] = {}
        self.reread = 0

    def __call__(self, event: Event) -> None:
        match event:
            case BytesReceived():
                self.fetched += event.bytes
                self.from_peers += event.bytes if event.supplier != ORIGIN else 0
            case Evicted():
                self.evictions += 1

    def read_again(self, count: int) -> None:
        """Count bytes that a scrub has read. Any thread calls it."""
        self.scrubbed += count

    def metrics(self) -> list[Metric]:
        """Return the metrics. None names a model, a source or a secret."""
        warmth = self.warmth.values()
        return [
            _gauge("build_info", "1, with the version as a label.", [Sample(1, {"version": VERSION})]),
            _gauge("artifacts", "Artifacts that the node shall have, by phase.", list(_by_phase(self.observed.values()))),
            _gauge("used_bytes", "What the root occupies.", self.survey.used),
            _gauge("capacity_bytes", "What models may occupy.", self.survey.capacity),
            _gauge("memory_budget_bytes", "Memory that belongs to models: the pool's budget.", self.room.budget),
            _gauge("warm_bytes", "What is in memory of models that are kept there.", sum(each.resident for each in warmth)),
            _gauge("locked_bytes", "What of that is locked.", sum(each.locked for each in warmth)),
            _counter("rewarmed_bytes_total", "Bytes that were reclaimed from memory and read again.", self.reread),
            _counter("fetched_bytes_total", "Bytes received, from sources and from peers.", self.fetched),
            _counter("peer_bytes_total", "Bytes of these that came from peers.", self.from_peers),
            _counter("evictions_total", "Artifacts that made room for others.", self.evictions),
            _counter("scrubbed_bytes_total", "Bytes read and compared by scrubs.", self.scrubbed),
            _counter("repaired_total", "Artifacts that were damaged and are whole again.", self.repaired),
            _counter("surveys_total", "Looks at everything in the root.", self.surveys),
            _counter("status_writes_total", "Statuses written to the API server.", self.status_writes),
            _gauge("status_written_timestamp_seconds", "Unix time of the last status written.", self.written_at),
            *self.serving(),
        ]


def _by_phase(observed: Iterable[Observed]) -> Iterable[Sample]:
    counts = Counter(each.phase for each in observed)
    return (Sample(counts[phase], {"phase": phase}) for phase in get_args(Phase))


def _gauge(name: str, help_text: str, value: float | list[Sample] | None) -> Metric:
    return Metric(f"weightlift_agent_{name}", "gauge", help_text, value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return Metric(f"weightlift_agent_{name}", "counter", help_text, value)
