"""The plots of a report on fetches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.fetching.peers import CHECKS, CONTENDERS
from benchmarks.fetching.scenarios import Scenario
from benchmarks.measuring import GB, MiB, Spread
from benchmarks.plots import Panel, bars, saved
from benchmarks.ratios import Results

BARS = ("shards", "four", "single", "tls", "link", "disk")
"""Scenarios that are drawn as bars, if they were run."""


def draw(target: Path, scenarios: Sequence[Scenario], results: Results) -> list[str]:
    """Write plots next to the report `target` and return the names of their files."""
    played = {scenario.name: scenario for scenario in scenarios if scenario.name in results}
    names = []
    if shown := [played[name] for name in BARS if name in played]:
        names.append(saved(bars(*(_panel(scenario, results) for scenario in shown)), target, "wall"))
    for prefix, label in (("growth-", "GiB"), ("connections-", "connections")):
        if shown := [scenario for name, scenario in played.items() if name.startswith(prefix)]:
            names.append(saved(_lines(shown, results, label=label), target, prefix.rstrip("-")))
    return names


def _panel(scenario: Scenario, results: Results) -> Panel:
    """Return wall times; the time of a check afterwards is paler."""
    kept = {name: measured.kept() for name, measured in results[scenario.name].items()}
    walls = {name: Spread.of([cost.wall for cost in costs]).median for name, costs in kept.items() if costs}
    fetching = {name: walls[name] for name in scenario.contenders if CONTENDERS[name].fetches and name in walls}
    check = walls.get(CHECKS[0])
    added = {name: check for name in fetching if check is not None and not CONTENDERS[name].verified}
    return Panel(f"{scenario.title}: {scenario.shape}; seconds, paler: {CHECKS[0]} afterwards", fetching, added)


def _lines(scenarios: Sequence[Scenario], results: Results, *, label: str) -> Figure:
    """Draw rate, processor time and memory of all contenders over the number at the end of each scenario's name."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    rate, work, memory = figure.subplots(1, 3)
    for name in scenarios[0].contenders:
        points = [(scenario, results[scenario.name][name].kept()) for scenario in scenarios]
        points = [(scenario, costs) for scenario, costs in points if costs]
        numbers = [_number(scenario) for scenario, _ in points]
        totals = [scenario.shape.total for scenario, _ in points]
        walls = [Spread.of([cost.wall for cost in costs]).median for _, costs in points]
        works = [Spread.of([cost.cpu for cost in costs]).median for _, costs in points]
        rate.plot(numbers, [total / wall / GB for total, wall in zip(totals, walls, strict=True)], marker="o", label=name)
        work.plot(numbers, [cpu * GB / total for total, cpu in zip(totals, works, strict=True)], marker="o")
        memory.plot(numbers, [max(cost.anonymous for cost in costs) / MiB for _, costs in points], marker="o")
    for axes, title in ((rate, "GB/s"), (work, "CPU seconds per GB"), (memory, "peak anonymous memory, MiB")):
        axes.set_xscale("log", base=2)
        axes.set_xticks([_number(scenario) for scenario in scenarios], [str(_number(scenario)) for scenario in scenarios])
        axes.set_xlabel(label)
        axes.set_title(title)
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def _number(scenario: Scenario) -> int:
    return int(scenario.name.rpartition("-")[2])
