"""The common parts of every report, in Markdown: conditions, ratios, tables, and the command of each contender."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from benchmarks.measuring import GB, Cost, MiB, Spread
from benchmarks.ratios import Results, Row, Unmeasured, anonymous, cpu, wall
from benchmarks.rounds import Measured
from benchmarks.surroundings import Setting, flags_for_openssl, processor_flags

Column = Callable[[Sequence[Cost]], str]
"""Formats the rounds of one contender as a cell."""


def document(title: str, setting: Setting, rows: Sequence[Row], results: Results, parts: Iterable[str]) -> str:
    """Return the report: conditions, ratios, then `parts`."""
    head = [f"# {title}, measured on {setting.date}", _setting(setting), "## Ratios"]
    flags = flags_for_openssl(processor_flags(), os.environ)
    return "\n\n".join([*head, ratio_table(rows, results, trial=setting.scale != 1, flags=flags), *parts]) + "\n"


def ratio_table(rows: Sequence[Row], results: Results, *, trial: bool, flags: Collection[str]) -> str:
    """Return the table of all rows, measured or not. A trial, in which start-up dominates, has no verdicts."""
    cells = []
    for row in rows:
        try:
            ratio = row.ratio(results)
        except Unmeasured as reason:
            outcome = [str(reason), "-"]
        else:
            outcome = [str(ratio), "trial" if trial else row.verdict(ratio.median, flags=flags)]
        cells.append([row.name, row.against, row.wanted(), *outcome])
    return table(["", "against", "wanted", "measured (rounds)", ""], cells)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def cells(first: Sequence[str], measured: Measured, columns: Iterable[Column]) -> list[str]:
    """Return a contender's row: `first`, which starts with its name, then a cell for each column or the reason for none."""
    name, *others = first
    costs = measured.kept()
    if measured.failure is not None or not costs:
        return [name, *others, measured.failure or f"all {len(measured.costs)} rounds were discarded"]
    if discarded := len(measured.costs) - len(costs):
        name += f" ({discarded} of {len(measured.costs)} rounds discarded)"
    return [name, *others, *(column(costs) for column in columns)]


def spread(figure: Callable[[Cost], float]) -> Column:
    return lambda costs: str(Spread.of(list(map(figure, costs))))


def most(figure: Callable[[Cost], float]) -> Column:
    """Return a column with the maximum in MiB."""
    return lambda costs: f"{max(map(figure, costs)) / MiB:.0f}"


def costs_of(total: int | None) -> dict[str, Column]:
    """Return the columns of a download: times, memory and, if it moved `total` bytes, rates."""
    times: dict[str, Column] = {"wall, s": spread(wall), "CPU, s": spread(cpu)}
    memory = {"anonymous, MiB": most(anonymous), "VmHWM, MiB": most(lambda cost: cost.resident)}
    if total is None:
        return times | memory
    rates: dict[str, Column] = {
        "GB/s": lambda costs: f"{total / Spread.of([cost.wall for cost in costs]).median / GB:.2f}",
        "CPU, s/GB": lambda costs: f"{Spread.of([cost.cpu for cost in costs]).median * GB / total:.2f}",
    }
    return times | rates | memory


def pictures(names: Iterable[str]) -> Iterable[str]:
    return (f"![{name}]({name})" for name in names)


def commands(results: Results) -> Iterable[str]:
    """Yield the full command of each contender, then the outcome of its ways in each scenario."""
    known: dict[str, str] = {}
    rows = []
    for scenario, contenders in results.items():
        for name, measured in contenders.items():
            for words in measured.tried:
                known.setdefault(name, shlex.join(words))
            if len(measured.tried) > 1:
                rows.append([f"`{scenario}`", name, _differences(measured.tried)])
    yield "\n".join(f"- {name}: `{command}`" for name, command in known.items())
    yield table(["first run, s", "", "ways"], rows)


def _setting(setting: Setting) -> str:
    warning = ""
    if setting.scale != 1:
        warning = f"\n\n**Sizes are {setting.scale:g} of the real ones: this is a trial of the bench, not a result.**"
    names = ", ".join(f"{name} {text}" for name, text in setting.versions.items())
    skipped = "".join(f"\n- not run: {name}: {reason}" for name, reason in setting.skipped.items())
    return (
        f"- command: `{setting.command}`\n- commit: {setting.commit}\n- machine: {setting.machine}\n"
        f"- SHA-256: {setting.hashing}\n- versions: {names}\n"
        f"- medians (least-most) of {setting.rounds} interleaved rounds; {setting.conditions}{skipped}{warning}"
    )


def _differences(tried: Mapping[tuple[str, ...], str]) -> str:
    """Return the outcome of each command with the words that are not common to all."""
    shown = []
    for words, outcome in tried.items():
        common = set(words).intersection(*(other for other in tried if other != words))
        own = shlex.join(word for word in words if word not in common)
        shown.append(f"{outcome} `{own}`" if own else f"{outcome} without more")
    return "; ".join(shown)
