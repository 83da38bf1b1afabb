"""Numbers as Prometheus reads them: its text format, and OpenMetrics for whoever asks for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One of several numbers under one name, told from the others by `labels`. Every value of a label is a series that somebody
    stores, so a label has few of them, and none that is a name of a file."""

    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """`value` None: nobody knows it, and it is left out. A counter's name ends in `_total`."""

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
    """The same numbers, each with `labels` besides its own."""
    if not labels:
        return list(metrics)
    return [
        replace(metric, value=[Sample(sample.value, {**labels, **sample.labels}) for sample in metric.samples])
        for metric in metrics
    ]


def exposition(metrics: Iterable[Metric], *, openmetrics: bool = False) -> str:
    """The two formats differ in what a counter's family is called, and in their end."""
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
