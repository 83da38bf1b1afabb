"""The report on fetches: ratios, scenarios, and the commands to repeat them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from benchmarks.fetching.peers import CHECKS, CONTENDERS, Contender
from benchmarks.fetching.rows import ROWS
from benchmarks.fetching.scenarios import Scenario
from benchmarks.measuring import Cost, MiB, Spread
from benchmarks.ratios import Results, Unmeasured, followed, of
from benchmarks.report import Column, cells, commands, costs_of, document, pictures, spread, table
from benchmarks.surroundings import Setting

CONDITIONS = """\
each contender a separate process, measured with its children; nginx with one worker, pinned to the last processor; memory \
for a copy populated and freed just before each run, so that no contender waits for the hypervisor; every copy compared with \
the served files"""
CALLING = """\
Every contender ran once in each of its ways before the first round, and continued with the fastest. Programs that do not know
the Hub got the addresses behind the Hub's redirects, so they skip listing and redirect. `COPY` is the destination, `SERVED` the
directory of the served files, `SCRATCH` the directory of the address lists."""


def report(setting: Setting, scenarios: Sequence[Scenario], results: Results, *, plots: Sequence[str] = ()) -> str:
    played = [scenario for scenario in scenarios if scenario.name in results]
    parts = [
        *pictures(plots),
        *(part for scenario in played for part in _scenario(scenario, results)),
        "## How each was called",
        CALLING,
        *commands(results),
    ]
    return document("Fetching", setting, ROWS, results, parts)


def _scenario(scenario: Scenario, results: Results) -> Iterable[str]:
    place = "disk" if scenario.on_disk else "memory (tmpfs)"
    columns = _columns(scenario)
    checks = [check for check in CHECKS if scenario.kind == "fetch" and set(CHECKS) <= set(scenario.contenders)]
    rows = [_cells(scenario, CONTENDERS[name], [*columns.values()], checks, results) for name in scenario.contenders]
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
    yield f"`{scenario.name}`: {scenario.shape}, at most {scenario.connections} connections, to {place}."
    yield table(["", "verified", *columns, *(f"wall with {check}, s" for check in checks)], rows)


def _columns(scenario: Scenario) -> dict[str, Column]:
    total = scenario.shape.total
    again = {"received, of the whole": spread(lambda cost: (cost.received or 0) / total)}
    moves_all = scenario.kind not in ("hit", "resume") and total >= MiB
    served: dict[str, Column] = {"server's CPU, s": _of_the_server} if scenario.kind == "fetch" else {}
    return costs_of(total if moves_all else None) | served | (again if scenario.kind == "resume" else {})


def _of_the_server(costs: Sequence[Cost]) -> str:
    """Return the server's processor time; empty for what needs no server."""
    times = [cost.server for cost in costs if cost.server is not None]
    return str(Spread.of(times)) if times else ""


def _cells(
    scenario: Scenario, contender: Contender, columns: Sequence[Column], checks: Sequence[str], results: Results
) -> list[str]:
    checked: list[Column] = [partial(_with_check, scenario.name, contender, check, results) for check in checks]
    first = [contender.name, "yes" if contender.verified else "no" if contender.fetches else ""]
    return cells(first, results[scenario.name][contender.name], [*columns, *checked])


def _with_check(scenario: str, contender: Contender, check: str, results: Results, _: Sequence[Cost]) -> str:
    """Return the wall time of an unverified peer followed by a check; empty for verified contenders."""
    if contender.verified or not contender.fetches:
        return ""
    try:
        return str(Spread.of(followed(of(scenario, contender.name), of(scenario, check))(results)))
    except Unmeasured as reason:
        return str(reason)
