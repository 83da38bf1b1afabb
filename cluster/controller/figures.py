"""What the controller's metrics show."""

from __future__ import annotations

from dataclasses import dataclass

from fetcher.telemetry.exposition import Metric


@dataclass(frozen=True, slots=True)
class Figures:
    """`planning`: seconds of the last decision. `written`: bytes of all objects that were written."""

    passes: int = 0
    planning: float = 0.0
    nodes: int = 0
    models: int = 0
    written: int = 0


def metrics_of(figures: Figures, *, leads: bool) -> list[Metric]:
    """Return the metrics. None names a model, a source or a node."""
    return [
        Metric("weightlift_controller_leading", "gauge", "1 if this process leads, else 0", float(leads)),
        Metric("weightlift_controller_nodes", "gauge", "nodes of the cluster", figures.nodes),
        Metric("weightlift_controller_models", "gauge", "ModelCaches of the cluster", figures.models),
        Metric("weightlift_controller_planning_seconds", "gauge", "how long the last decision took", figures.planning),
        Metric("weightlift_controller_passes_total", "counter", "decisions about the whole cluster", figures.passes),
        Metric("weightlift_controller_written_bytes_total", "counter", "bytes of objects written", figures.written),
    ]
