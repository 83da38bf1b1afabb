"""The report in Markdown: the ratios first, then every scenario, then what it takes to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measuring import GB, MiB, Spread
from benchmarks.peers import CHECKS, CONTENDERS
from benchmarks.ratios import ROWS, Results, Unmeasured, followed, of
from benchmarks.running import Measured
from benchmarks.scenarios import Scenario

CALLING = """\
Every contender ran once with each of its settings before the first round, and the fastest went on. Programs that know no Hub
were given the addresses behind the Hub's redirects, so that they are spared listing and redirect."""


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
        ratio_table(results),
        *(f"![{name}]({name})" for name in plots),
        *(part for scenario in played for part in _scenario(scenario, results)),
        "## How each was called",
        CALLING,
        *(_commands(scenario, results[scenario.name]) for scenario in played),
    ]
    return "\n\n".join(parts) + "\n"


def ratio_table(results: Results) -> str:
    """Every row of `ratios.ROWS`, measured or not."""
    lines = ["| | against | wanted | measured (rounds) | |", "|---|---|---|---|---|"]
    for row in ROWS:
        try:
            ratio = row.ratio(results)
        except Unmeasured as reason:
            lines.append(f"| {row.name} | {row.against} | {row.wanted()} | {reason} | - |")
        else:
            verdict = "pass" if row.holds(ratio.median) else "**fail**"
            lines.append(f"| {row.name} | {row.against} | {row.wanted()} | {ratio} | {verdict} |")
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
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
    yield f"`{scenario.name}`: {scenario.shape}, {scenario.connections} connections at most, to {place}."
    head = ["", "verified", "wall, s", "GB/s", "CPU, s/GB", "anonymous, MiB", "VmHWM, MiB"]
    if scenario.kind == "fetch" and set(CHECKS) <= set(scenario.contenders):
        head += [f"wall with {check}, s" for check in CHECKS]
    if scenario.kind == "resume":
        head += ["fetched again, of the whole"]
    rows = [_cells(scenario, name, results) for name in scenario.contenders]
    yield "\n".join(
        ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(row) + " |" for row in rows)]
    )


def _cells(scenario: Scenario, name: str, results: Results) -> list[str]:
    measured, contender = results[scenario.name][name], CONTENDERS[name]
    verified = "yes" if contender.verified else "no" if contender.fetches else ""
    costs = measured.kept()
    if measured.failure is not None or not costs:
        return [name, verified, measured.failure or "every round was discarded"]
    total = scenario.shape.total
    walls = Spread.of([cost.wall for cost in costs])
    discarded = len(measured.costs) - len(costs)
    cells = [
        name,
        verified,
        f"{walls}" + (f", {discarded} discarded" if discarded else ""),
        f"{total / walls.median / GB:.2f}",
        str(Spread.of([cost.cpu * GB / total for cost in costs])),
        f"{max(cost.anonymous for cost in costs) / MiB:.0f}",
        f"{max(cost.resident for cost in costs) / MiB:.0f}",
    ]
    if scenario.kind == "fetch" and contender.fetches and not contender.verified and set(CHECKS) <= set(scenario.contenders):
        cells += [_with_check(scenario.name, name, check, results) for check in CHECKS]
    if scenario.kind == "resume":
        cells.append(f"{Spread.of([(cost.received or 0) / total for cost in costs])}")
    return cells


def _with_check(scenario: str, name: str, check: str, results: Results) -> str:
    try:
        return str(Spread.of(followed(of(scenario, name), of(scenario, check))(results)))
    except Unmeasured as reason:
        return str(reason)


def _commands(scenario: Scenario, measured: Mapping[str, Measured]) -> str:
    lines = [f"`{scenario.name}`:", ""]
    for name, each in measured.items():
        tried = "".join(
            f"\n  - tried too, {seconds:.2f} s: `{text}`" for seconds, text in each.tried if text != shlex.join(each.command)
        )
        lines.append(f"- {name}: `{shlex.join(each.command)}`{tried}" if each.command else f"- {name}: {each.failure}")
    return "\n".join(lines)
