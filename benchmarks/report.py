"""What every report has, in Markdown: how it was taken, the ratios, tables, and how each contender was called."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from benchmarks.measuring import Cost, MiB, Spread
from benchmarks.ratios import Results, Row, Unmeasured
from benchmarks.rounds import Measured
from benchmarks.surroundings import Setting, processor_flags

Column = Callable[[Sequence[Cost]], str]
"""What the rounds of one contender come to, as a cell."""


def document(title: str, setting: Setting, rows: Sequence[Row], results: Results, parts: Iterable[str]) -> str:
    """The ratios first, then `parts`."""
    head = [f"# {title}, measured on {setting.date}", _setting(setting), "## Ratios"]
    return "\n\n".join([*head, ratio_table(rows, results, trial=setting.scale != 1, flags=processor_flags()), *parts]) + "\n"


def ratio_table(rows: Sequence[Row], results: Results, *, trial: bool, flags: Collection[str]) -> str:
    """Every row, measured or not; a trial, where starting outweighs the rest, neither passes nor fails."""
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
    """A contender's row: `first`, whose first word is its name, then a cell for each column, or why there is nothing."""
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
    """In MiB."""
    return lambda costs: f"{max(map(figure, costs)) / MiB:.0f}"


def pictures(names: Iterable[str]) -> Iterable[str]:
    return (f"![{name}]({name})" for name in names)


def commands(results: Results) -> Iterable[str]:
    """Each contender's command in full, once; then, for each scenario, what came of the ways that a contender has."""
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
        warning = f"\n\n**Sizes are {setting.scale:g} of the real ones: a trial of the bench, not a result.**"
    names = ", ".join(f"{name} {text}" for name, text in setting.versions.items())
    skipped = "".join(f"\n- not played: {name}: {reason}" for name, reason in setting.skipped.items())
    return (
        f"- command: `{setting.command}`\n- commit: {setting.commit}\n- machine: {setting.machine}\n- versions: {names}\n"
        f"- medians (least-most) of {setting.rounds} interleaved rounds; {setting.conditions}{skipped}{warning}"
    )


def _differences(tried: Mapping[tuple[str, ...], str]) -> str:
    """Of each command only the words that the others do not have all."""
    shown = []
    for words, outcome in tried.items():
        common = set(words).intersection(*(other for other in tried if other != words))
        own = shlex.join(word for word in words if word not in common)
        shown.append(f"{outcome} `{own}`" if own else f"{outcome} without more")
    return "; ".join(shown)
