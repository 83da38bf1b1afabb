"""The exposition formats of Prometheus: its text format, and OpenMetrics on request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from fetcher.values import dataclass

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One number of a metric, identified by `labels`.

    Each label value is a series that Prometheus stores, so a label has few values and is never a file name.
    """

    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its number, or one sample for each set of labels. `value` None means unknown: the metric is left out.

    A counter's name ends in `_total`.
    """

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    value: float | Sequence[Sample] | None

    @property
    def samples(self) -> Sequence[Sample]:
        if self.value is None:
            return ()
        return self.value if isinstance(self.value, Sequence) else (Sample(self.value, {}),)


def labelled(metrics: Iterable[Metric], labels: Mapping[str, str]) -> list[Metric]:
    """Return the metrics with `labels` added to each sample."""
    if not labels:
        return list(metrics)
    return [
        replace(metric, value=[Sample(sample.value, {**labels, **sample.labels}) for sample in metric.samples])
        for metric in metrics
    ]


def exposition(metrics: Iterable[Metric], *, openmetrics: bool = False) -> str:
    """Return the metrics as text. The two formats differ in a counter's family name and in the last line."""
    lines: list[str] = []
    for metric in metrics:
        if not metric.samples:
            continue
        family = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
        lines += [f"# HELP {family} {metric.help}", f"# TYPE {family} {metric.kind}"]
        lines += [f"{metric.name}{_braced(sample.labels)} {_number(sample.value)}" for sample in metric.samples]
    return "\n".join([*lines, *(["# EOF"] if openmetrics else []), ""])


def _braced(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
