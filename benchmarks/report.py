"""The report in Markdown: the ratios first, then every scenario, then what it takes to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measuring import GB, Cost, MiB, Spread
from benchmarks.peers import CHECKS, CONTENDERS, Contender
from benchmarks.ratios import ROWS, Results, Unmeasured, followed, of
from benchmarks.scenarios import Scenario

CALLING = """\
Every contender ran once in each of its ways before the first round, and the fastest went on. Programs that know no Hub were
given the addresses behind the Hub's redirects, so that they are spared listing and redirect. `COPY` is the destination,
`SERVED` what is served, `SCRATCH` where the lists of addresses are."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a reader needs to judge and to repeat. `skipped`: scenarios that were not played, with the reason."""

    command: str
    machine: str
    versions: dict[str, str]
    commit: str
    rounds: int
    scale: float
    date: str
    skipped: dict[str, str]


def report(setting: Setting, scenarios: Sequence[Scenario], results: Results, *, plots: Sequence[str] = ()) -> str:
    played = [scenario for scenario in scenarios if scenario.name in results]
    parts = [
        f"# Fetching, measured on {setting.date}",
        _setting(setting),
        "## Ratios",
        ratio_table(results, trial=setting.scale != 1),
        *(f"![{name}]({name})" for name in plots),
        *(part for scenario in played for part in _scenario(scenario, results)),
        "## How each was called",
        CALLING,
        *_commands(played, results),
    ]
    return "\n\n".join(parts) + "\n"


def ratio_table(results: Results, *, trial: bool) -> str:
    """Every row of `ratios.ROWS`, measured or not; a trial, where starting outweighs the rest, neither passes nor fails."""
    lines = ["| | against | wanted | measured (rounds) | |", "|---|---|---|---|---|"]
    for row in ROWS:
        try:
            ratio = row.ratio(results)
        except Unmeasured as reason:
            lines.append(f"| {row.name} | {row.against} | {row.wanted()} | {reason} | - |")
        else:
            lines.append(
                f"| {row.name} | {row.against} | {row.wanted()} | {ratio} | {'trial' if trial else row.verdict(ratio.median)} |"
            )
    return "\n".join(lines)


def _setting(setting: Setting) -> str:
    warning = ""
    if setting.scale != 1:
        warning = f"\n\n**Sizes are {setting.scale:g} of the real ones: a trial of the bench, not a result.**"
    names = ", ".join(f"{name} {text}" for name, text in setting.versions.items())
    skipped = "".join(f"\n- not played: {name}: {reason}" for name, reason in setting.skipped.items())
    return (
        f"- command: `{setting.command}`\n- commit: {setting.commit}\n- machine: {setting.machine}\n- versions: {names}\n"
        f"- medians (least-most) of {setting.rounds} interleaved rounds; each contender a process of its own, its children "
        f"included; nginx with one worker, pinned to the last processor; every copy"
        f" compared with what was served{skipped}{warning}"
    )


def _scenario(scenario: Scenario, results: Results) -> Iterable[str]:
    place = "disk" if scenario.on_disk else "memory (tmpfs)"
    columns = _columns(scenario)
    head = ["", "verified", *columns, *(f"wall with {check}, s" for check in CHECKS if _shows_checks(scenario))]
    rows = [_cells(scenario, CONTENDERS[name], columns, results) for name in scenario.contenders]
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
    yield f"`{scenario.name}`: {scenario.shape}, {scenario.connections} connections at most, to {place}."
    yield "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _columns(scenario: Scenario) -> dict[str, Callable[[Sequence[Cost]], str]]:
    total = scenario.shape.total
    times = {
        "wall, s": lambda costs: str(Spread.of([cost.wall for cost in costs])),
        "CPU, s": lambda costs: str(Spread.of([cost.cpu for cost in costs])),
    }
    rates = {
        "GB/s": lambda costs: f"{total / Spread.of([cost.wall for cost in costs]).median / GB:.2f}",
        "CPU, s/GB": lambda costs: f"{Spread.of([cost.cpu for cost in costs]).median * GB / total:.2f}",
    }
    memory = {
        "anonymous, MiB": lambda costs: f"{max(cost.anonymous for cost in costs) / MiB:.0f}",
        "VmHWM, MiB": lambda costs: f"{max(cost.resident for cost in costs) / MiB:.0f}",
    }
    again = {"received, of the whole": lambda costs: str(Spread.of([(cost.received or 0) / total for cost in costs]))}
    moves_all = scenario.kind not in ("hit", "resume") and total >= MiB
    return times | (rates if moves_all else {}) | memory | (again if scenario.kind == "resume" else {})


def _cells(
    scenario: Scenario, contender: Contender, columns: Mapping[str, Callable[[Sequence[Cost]], str]], results: Results
) -> list[str]:
    measured = results[scenario.name][contender.name]
    first = [contender.name, "yes" if contender.verified else "no" if contender.fetches else ""]
    costs = measured.kept()
    if measured.failure is not None or not costs:
        return [*first, measured.failure or f"all {len(measured.costs)} rounds were discarded"]
    if discarded := len(measured.costs) - len(costs):
        first[0] += f" ({discarded} of {len(measured.costs)} rounds discarded)"
    checked = [_with_check(scenario.name, contender, check, results) for check in CHECKS if _shows_checks(scenario)]
    return [*first, *(column(costs) for column in columns.values()), *checked]


def _shows_checks(scenario: Scenario) -> bool:
    return scenario.kind == "fetch" and set(CHECKS) <= set(scenario.contenders)


def _with_check(scenario: str, contender: Contender, check: str, results: Results) -> str:
    """What a user of a peer that does not verify waits for; nothing to add for the others."""
    if contender.verified or not contender.fetches:
        return ""
    try:
        return str(Spread.of(followed(of(scenario, contender.name), of(scenario, check))(results)))
    except Unmeasured as reason:
        return str(reason)


def _commands(scenarios: Sequence[Scenario], results: Results) -> Iterable[str]:
    """Each contender's command in full, once; then, for each scenario, what came of the ways that a contender has."""
    commands: dict[str, str] = {}
    for scenario in scenarios:
        for name, measured in results[scenario.name].items():
            for words in measured.tried:
                commands.setdefault(name, shlex.join(words))
    yield "\n".join(f"- {name}: `{command}`" for name, command in commands.items())
    lines = ["| first run, s | | ways |", "|---|---|---|"]
    for scenario in scenarios:
        for name, measured in results[scenario.name].items():
            if len(measured.tried) > 1:
                lines.append(f"| `{scenario.name}` | {name} | {_differences(measured.tried)} |")
    yield "\n".join(lines)


def _differences(tried: Mapping[tuple[str, ...], str]) -> str:
    """Of each command only the words that the others of the same program do not have all; whole when there are no others."""
    shown = []
    for words, outcome in tried.items():
        others = [other for other in tried if other[0] == words[0] and other != words]
        common = set(words).intersection(*others) if others else set()
        shown.append(f"{outcome} `{shlex.join(word for word in words if word not in common)}`")
    return "; ".join(shown)
