"""Save plots as PNG files next to a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Panel:
    """A bar of `values` for each name, with a paler bar of `added` for some."""

    title: str
    values: Mapping[str, float]
    added: Mapping[str, float] = field(default_factory=dict)


def bars(*panels: Panel) -> Figure:
    figure = Figure(figsize=(10, 2.6 * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        axes.barh(list(panel.values), list(panel.values.values()), color="tab:blue")
        begins = [panel.values[name] for name in panel.added]
        axes.barh(list(panel.added), list(panel.added.values()), left=begins, color="tab:blue", alpha=0.3)
        axes.invert_yaxis()
        axes.set_title(panel.title, fontsize=9)
    return figure


def saved(figure: Figure, target: Path, name: str) -> str:
    """Save the figure next to the report `target` and return the name of its file."""
    path = target.with_name(f"{target.stem}-{name}.png")
    figure.savefig(path, dpi=100)
    return path.name
