"""The plot of the README: `python -m benchmarks.overview benchmarks/reports/2026-11-21.md docs/rates.svg`.

It reads the figures from a report and measures nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

GB = 4 * 1024**3 / 1e9
"""GB transferred in the section "4 shards" of a report: 4 shards of 1 GiB."""
OURS = "fetcher"
PEERS = ("hf_transfer", "snapshot_download", "aria2c", "curl", "kserve-storage")


def seconds(report: str, column: str, section: str = "4 shards") -> dict[str, float]:
    """Return the median of a column in a section's table, in seconds, by contender. Rows without a figure are left out.

    Raises ValueError if the section or column is missing.
    """
    _, heading, rest = report.partition(f"\n## {section}\n")
    rows = [_cells(line) for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
    if not heading or not rows:
        raise ValueError(f"the report has no section {section!r} with a table")
    place = rows[0].index(column)
    figures = {row[0]: re.match(r"[0-9.]+", row[place]) for row in rows[2:]}
    return {name: float(figure[0]) for name, figure in figures.items() if figure}


def verified(report: str) -> dict[str, float]:
    """Return the rate in GB/s with digests compared, by contender. For the peers, `openssl dgst` follows the transfer."""
    alone, followed = seconds(report, "wall, s"), seconds(report, "wall with openssl dgst, s")
    return {name: GB / (alone[name] if name == OURS else followed[name]) for name in (OURS, *PEERS)}


def transferred(report: str) -> dict[str, float]:
    """Return the rate in GB/s of the transfer alone, by contender."""
    alone = seconds(report, "wall, s")
    return {OURS: GB / alone["fetcher, no digests listed"], **{name: GB / alone[name] for name in PEERS}}


def drawn(panels: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw a bar with its rate for each contender in each panel."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    figure.patch.set_facecolor("white")  # readable on a dark page
    for axes, (title, rates) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        colors = ["tab:blue" if name == OURS else "lightgray" for name in rates]
        bars = axes.barh(list(rates), list(rates.values()), color=colors)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        axes.set_xlim(0, max(rates.values()) * 1.2)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("GB/s")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def main(source: Path, target: Path) -> None:
    report = source.read_text()
    panels = {"every digest verified (peers: followed by openssl dgst)": verified(report), "transfer only": transferred(report)}
    # Text stays text, and the same figures give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rates"}):
        drawn(panels).savefig(target, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
