"""Renderers of events: a bar on a terminal, lines in a container's log, JSON lines, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from fetcher.events import Subscriber, silent

Kind = Literal["auto", "bar", "log", "json", "none"]


@contextmanager
def subscribed(kind: Kind, stream: TextIO) -> Iterator[Subscriber]:
    """Provide a subscriber that renders to `stream` until the block ends. `auto`: a bar on a terminal, otherwise log lines."""
    if kind == "auto":
        kind = "bar" if stream.isatty() and os.environ.get("TERM") != "dumb" else "log"
    match kind:
        case "bar":
            from fetcher.telemetry.bar import bar

            with bar(stream) as subscriber:
                yield subscriber
        case "log":
            from fetcher.telemetry.log import log_lines

            with log_lines(stream) as subscriber:
                yield subscriber
        case "json":
            from fetcher.telemetry.jsonlines import JsonLines

            yield JsonLines(stream, clock=time.monotonic)
        case _:
            yield silent
