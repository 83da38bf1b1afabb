"""Numbers as Prometheus reads them: its text format, and OpenMetrics for whoever asks for that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Metric:
    """`value` None: nobody knows it, and it is left out. A counter's name ends in `_total`."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: float | None


def exposition(metrics: Iterable[Metric], *, openmetrics: bool = False) -> str:
    """The two formats differ in what a counter's family is called, and in their end."""
    lines: list[str] = []
    for metric in metrics:
        if metric.value is None:
            continue
        family = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
        lines += [f"# HELP {family} {metric.help}", f"# TYPE {family} {metric.kind}", f"{metric.name} {_number(metric.value)}"]
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
