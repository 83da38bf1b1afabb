"""The table of `fetcher list`: drawn on a terminal, one line for each artifact elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from fetcher.artifact import redact
from fetcher.cache import Listed
from fetcher.command.results import print_result
from fetcher.quantities import size
from fetcher.telemetry.wording import duration

COLUMNS = ("key", "size", "revision", "last used", "source")


def print_artifacts(artifacts: Sequence[Listed], *, now: float | None = None) -> None:
    """Print the artifacts in their order. `now`: seconds since 1970."""
    moment = time.time() if now is None else now
    rows = [_row(each, moment) for each in artifacts]
    if sys.stdout.isatty():
        _draw(rows)
        return
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(COLUMNS))]
    for row in rows:
        print_result("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _row(artifact: Listed, now: float) -> tuple[str, ...]:
    manifest = artifact.entry.manifest
    if artifact.owner is not None:
        used = "being updated"
    elif artifact.last_used is None:
        used = "never"
    else:
        used = f"{duration(max(0.0, now - artifact.last_used))} ago"
    return artifact.entry.key, size(manifest.size), (manifest.revision or "-")[:12], used, redact(manifest.uri)


def _draw(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    *narrow, last = COLUMNS
    for name in narrow:
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    table.add_column(last, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as they are: an address may hold what rich takes for markup
    Console(soft_wrap=True).print(table)
