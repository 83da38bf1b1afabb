"""Options that both programs have, word for word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fetcher.command.options import Option
from fetcher.errors import ConfigurationError
from fetcher.quantities import parse_number

_OURS = ("phase", "reason", "retryable", "version")
"""Labels that our own metrics have."""


def parse_label(text: str) -> tuple[str, str]:
    """`NAME=VALUE` → its two parts, as Prometheus allows them. Raises ConfigurationError."""
    name, separator, value = text.partition("=")
    if not separator or not re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]{0,62}", name) or name.startswith("__") or name in _OURS:
        raise ConfigurationError(f"not NAME=VALUE with a name of letters that is none of {', '.join(_OURS)}: {text!r}")
    return name, value


JSON = Option("json", "print one JSON object on stdout", switch=True)
PROGRESS = Option("progress", "how to show progress on stderr", choices=("auto", "bar", "log", "json", "none"))
TERMINATION_LOG = Option(
    "termination_log", "write the result as one line of JSON to FILE (default /dev/termination-log, if there)", Path, "FILE"
)
ENDING = (PROGRESS, TERMINATION_LOG)
METRICS = (
    Option(
        "metrics_port",
        "serve /metrics and /healthz on this port while it runs; 0: any",
        partial(parse_number, 0, 65535),
        "N",
    ),
    Option(
        "metrics_address",
        "listen there only (default: everywhere, as Prometheus and the kubelet come to the pod's address)",
        metavar="ADDRESS",
    ),
    Option("metrics_file", "write the metrics to FILE, for node_exporter's textfile collector", Path, "FILE"),
    Option(
        "metrics_label",
        "a label for every metric, by which those of several commands on one node are told apart; may be repeated",
        parse_label,
        "NAME=VALUE",
        repeated=True,
    ),
)


def wants_metrics(found: Mapping[str, Any]) -> bool:
    return "metrics_port" in found or "metrics_file" in found
