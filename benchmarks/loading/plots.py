"""The plot of a report on loading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.loading.scenarios import Scenario
from benchmarks.measuring import Spread
from benchmarks.plots import Panel, bars, saved
from benchmarks.ratios import Results

BARS = ("cold", "warm", "pages", "copy")
"""Scenarios that are drawn, if they were run."""


def draw(target: Path, scenarios: Sequence[Scenario], results: Results) -> list[str]:
    """Write the plot next to the report `target` and return the name of its file."""
    shown = [scenario for scenario in scenarios if scenario.name in BARS and scenario.name in results]
    panels = (Panel(f"{scenario.title}; seconds", _walls(scenario, results)) for scenario in shown)
    return [saved(bars(*panels), target, "wall")] if shown else []


def _walls(scenario: Scenario, results: Results) -> dict[str, float]:
    kept = {name: measured.kept() for name, measured in results[scenario.name].items()}
    return {name: Spread.of([cost.wall for cost in costs]).median for name, costs in kept.items() if costs}
