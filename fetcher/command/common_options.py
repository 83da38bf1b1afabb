"""Options that `fetcher` and `loader` share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fetcher.command.options import Option
from fetcher.errors import ConfigurationError
from fetcher.quantities import parse_number

_RESERVED = ("phase", "reason", "retryable", "version")
"""Labels of our own metrics."""


def parse_label(text: str) -> tuple[str, str]:
    """Split `NAME=VALUE`; the name must be a valid Prometheus label. Raises ConfigurationError."""
    name, separator, value = text.partition("=")
    if not separator or not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]{0,62}", name) or name.startswith("__") or name in _RESERVED:
        reserved = ", ".join(_RESERVED)
        raise ConfigurationError(f"{text!r} is not a label; write NAME=VALUE, NAME in letters and not one of {reserved}")
    return name, value


JSON = Option("json", "print the result as one line of JSON on stdout", switch=True)
PROGRESS = Option("progress", "how to show progress on stderr", choices=("auto", "bar", "log", "json", "none"))
TERMINATION_LOG = Option(
    "termination_log", "write the result to FILE as one line of JSON (default /dev/termination-log, if present)", Path, "FILE"
)
ENDING = (PROGRESS, TERMINATION_LOG)
METRICS = (
    Option(
        "metrics_port",
        "serve /metrics and /healthz on this port while the command runs; 0 for any free port",
        partial(parse_number, 0, 65535),
        "N",
    ),
    Option(
        "metrics_address",
        "listen on this address only (default: all, since Prometheus and the kubelet use the pod's address)",
        metavar="ADDRESS",
    ),
    Option("metrics_file", "write the metrics to FILE for node_exporter's textfile collector", Path, "FILE"),
    Option(
        "metrics_label",
        "label for every metric, to distinguish several commands on one node; may be repeated",
        parse_label,
        "NAME=VALUE",
        repeated=True,
    ),
)


def wants_metrics(options: Mapping[str, Any]) -> bool:
    return "metrics_port" in options or "metrics_file" in options
