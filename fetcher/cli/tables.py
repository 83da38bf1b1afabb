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
    print_rows(COLUMNS, [_row(each, moment) for each in artifacts])


def print_rows(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table. The last column is folded on a terminal."""
    if sys.stdout.isatty():
        _draw(columns, rows)
        return
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(columns))]
    for row in rows:
        print_result("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def ago(moment: float | None, now: float) -> str:
    """Return how long ago `moment` was, both in seconds since 1970."""
    return "never" if not moment else f"{duration(max(0.0, now - moment))} ago"


def _row(artifact: Listed, now: float) -> tuple[str, ...]:
    manifest = artifact.entry.manifest
    used = "being updated" if artifact.owner is not None else ago(artifact.last_used, now)
    return artifact.entry.key, size(manifest.size), (manifest.revision or "-")[:12], used, redact(manifest.uri)


def _draw(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    *narrow, last = columns
    for name in narrow:
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    table.add_column(last, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as they are: an address may hold what rich takes for markup
    Console(soft_wrap=True).print(table)
