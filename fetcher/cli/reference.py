"""`python -m fetcher.cli.reference > docs/cli.md`: the reference, made from the options themselves."""

from __future__ import annotations

import sys

from fetcher.cli.metrics import all_metrics
from fetcher.cli.parser import COMMANDS
from fetcher.command.parser import metrics_table, section

_POSITIONAL = {
    "fetch": "URI",
    "plan": "URI",
    "key": "URI",
    "list": "",
    "show": "KEY|URI",
    "verify": "[KEY|URI|DIR]",
}
_METRICS = """
## Metrics of `fetcher fetch`

`--metrics-port` serves them at `/metrics` while it runs, as Prometheus text or OpenMetrics, whichever is asked for. What ends
between two scrapes is seen in a file: `--metrics-file` is written every 5 seconds and once more at the end, then with the
result, and stays. Several commands whose files one node_exporter collects need a `--metrics-label` each, such as
`--metrics-label artifact=llama`. No metric names a file, a URI or a secret. A file that can't be written is a warning; a
port that can't be had ends the command with 78.
"""


def reference() -> str:
    """The whole document, in Markdown."""
    lines = [
        "# `fetcher` on the command line",
        "",
        "Made by `python -m fetcher.cli.reference > docs/cli.md`; do not edit. A flag wins over its variable. A variable for a",
        "flag that may be repeated holds several values, on lines of their own or separated by commas.",
    ]
    for name, (help_text, options) in COMMANDS.items():
        lines += section(f"fetcher {name} {_POSITIONAL[name]}", help_text, options)
    return "\n".join([*lines, _METRICS, *metrics_table(all_metrics())]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
