"""The tables of `fetcher list` and `fetcher du`: drawn on a terminal, one line for each row elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from fetcher.artifact import redact
from fetcher.cache import Listed, Occupation
from fetcher.command.results import print_result
from fetcher.quantities import size
from fetcher.telemetry.wording import duration

_AMOUNTS = ("size", "shared", "allocated", "warm")


def print_artifacts(
    artifacts: Sequence[Listed], *, warm: Mapping[str, float | None] | None = None, now: float | None = None
) -> None:
    """Print the artifacts in their order. `warm`: the share of each path in memory, to be shown. `now`: seconds since 1970."""
    moment = time.time() if now is None else now
    print_rows([_artifact(each, warm, moment) for each in artifacts])


def print_occupation(occupation: Occupation) -> None:
    """Print what each place of a root occupies, and all of them together."""
    rows = [
        {
            "place": place.name,
            "allocated": size(place.allocated),
            "shared": size(place.shared),
            "source": ", ".join(redact(each.entry.summary.uri) for each in place.artifacts),
        }
        for place in occupation.places
    ]
    twice = sum(place.allocated for place in occupation.places) - occupation.allocated
    total = {"place": "total", "allocated": size(occupation.allocated), "shared": size(twice), "source": ""}
    print_rows([*rows, total])


def _artifact(artifact: Listed, warm: Mapping[str, float | None] | None, now: float) -> dict[str, str]:
    summary, used = artifact.entry.summary, artifact.last_used
    row = {
        "key": artifact.entry.key,
        "size": size(summary.size),
        "shared": size(summary.shared) if summary.shared else "-",
        "revision": (summary.revision or "-")[:12],
        "last used": ago(used, now),
        "kept by": _keeper(artifact),
    }
    if warm is not None:
        share = warm[str(artifact.entry.path)]
        row["warm"] = "unknown" if share is None else f"{share:.0%}"
    return row | {"source": redact(summary.uri)}


def _keeper(artifact: Listed) -> str:
    """Who keeps the artifact from being removed."""
    if artifact.pinned:
        return "a pin"
    if artifact.held_by:
        return f"pod {artifact.held_by[0]}" + (f" and {len(artifact.held_by) - 1} more" if artifact.held_by[1:] else "")
    return artifact.owner or "-"


def ago(moment: float | None, now: float) -> str:
    """Return how long ago `moment` was, both in seconds since 1970."""
    return "never" if not moment else f"{duration(max(0.0, now - moment))} ago"


def print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Print a table: column → text for each row. The last column is folded on a terminal."""
    if not rows:
        return
    if sys.stdout.isatty():
        _draw(rows)
        return
    widths = {name: max(len(row[name]) for row in rows) for name in rows[0]}
    for row in rows:
        print_result("  ".join(f"{row[name]:{width}}" for name, width in widths.items()).rstrip())


def _draw(rows: Sequence[Mapping[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    # A column without a value in any row is left out, so that the sources have room.
    *narrow, last = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    for name in narrow:
        table.add_column(name, no_wrap=True, justify="right" if name in _AMOUNTS else "left")
    table.add_column(last, overflow="fold")
    for row in rows:
        # As they are: an address may hold what rich takes for markup.
        table.add_row(*(Text(row[name]) for name in (*narrow, last)))
    Console(soft_wrap=True).print(table)
