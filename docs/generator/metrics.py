"""docs/metrics.md: what Prometheus is told."""

from __future__ import annotations

from docs.generator.tables import NOTICE
from fetcher.cli.metrics import all_metrics
from fetcher.cli.verify_metrics import all_verify_metrics
from fetcher.command.parser import metrics_table
from fetcher.serving import Counts
from fetcher.telemetry.exposition import Metric
from loader.cli.metrics import all_load_metrics, hold_metrics
from loader.residency.holding import State

_INTRODUCTION = """\
# Metrics

Metrics are published in two ways:

- `--metrics-port N` serves `/metrics` while the command runs, as Prometheus text or OpenMetrics, by what the scraper
  accepts. A port that is taken ends the command with 78.
- `--metrics-file FILE` writes a textfile for node_exporter every 5 seconds and once more at the end. The file stays and
  then holds the result. A file that cannot be written is a warning.

Several commands whose files one node_exporter collects need one `--metrics-label` each, such as `--metrics-label
artifact=llama`. No metric names a file, a URI or a secret. A killed command leaves its last numbers: its progress
timestamp stands still."""
_HOLD = """
The metrics of `loader hold` are served while it runs. It removes its `--metrics-file` at the end.
"""


def metrics() -> str:
    """The page, in Markdown."""
    sections = (
        ("`fetcher fetch`", all_metrics()),
        ("`fetcher verify`", all_verify_metrics()),
        ("`fetcher serve`", _serve_metrics()),
        ("`loader warm`, `loader load` and `loader copy`", all_load_metrics()),
        ("`loader hold`", hold_metrics(State())),
    )
    lines = [_INTRODUCTION, "", NOTICE]
    for title, found in sections:
        lines += ["", f"## {title}", "", *metrics_table(found)]
    return "\n".join([*lines, ""]) + _HOLD


def _serve_metrics() -> list[Metric]:
    """Every metric of a server that has answered something."""
    counts = Counts()
    counts.answered(200)
    return counts.metrics()
