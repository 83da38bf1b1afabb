"""The report on loading: ratios, scenarios, and the commands to repeat them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.loading.contenders import FIO
from benchmarks.loading.rows import ROWS, beyond, first, residency
from benchmarks.loading.scenarios import Scenario
from benchmarks.measuring import MiB, Spread
from benchmarks.ratios import Results, cpu, wall
from benchmarks.report import Column, cells, commands, document, most, pictures, spread, table
from benchmarks.surroundings import Setting

GiB = 1024 * MiB

CONDITIONS = """\
each contender a separate process. Loaders are timed inside it, from just before the first file is opened to the last tensor \
in memory, with allocation of destination memory but without imports. Memory for the tensors is populated and freed just \
before, so that no contender waits for the hypervisor. Commands are timed as whole processes, fio by its own count. Cold: each \
file synced and dropped (POSIX_FADV_DONTNEED), and mincore finds none of it just before the start. Warm: mincore finds all of \
it. The digest of every tensor and every copy was compared"""
CALLING = """\
Every contender ran once in each of its ways before the first round, and continued with the fastest. `SHARDS` and `ONE` are the
checkpoint's directories, `SCRATCH` contains tensorizer's file and the results of clients, `COPY` is on tmpfs."""


def report(setting: Setting, scenarios: Sequence[Scenario], results: Results, *, size: int, plots: Sequence[str] = ()) -> str:
    played = [scenario for scenario in scenarios if scenario.name in results]
    parts = [
        *pictures(plots),
        *(part for scenario in played for part in _scenario(scenario, results, size)),
        "## How each was called",
        CALLING,
        *commands(results),
    ]
    return document("Loading", setting, ROWS, results, parts)


def _scenario(scenario: Scenario, results: Results, size: int) -> Iterable[str]:
    columns = _columns(scenario, size)
    rows = [cells([name], measured, _for(name, columns)) for name, measured in results[scenario.name].items()]
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
    yield f"`{scenario.name}`: {size / GiB:.3g} GiB of tensors."
    yield table(["", *columns], rows)


def _columns(scenario: Scenario, size: int) -> dict[str, Column]:
    rate: dict[str, Column] = {
        "GiB/s": lambda costs: f"{size / Spread.of([cost.wall for cost in costs]).median / GiB:.2f}",
    }
    work: dict[str, Column] = {
        "CPU, s": spread(cpu),
        "page faults": lambda costs: f"{Spread.of([cost.faults for cost in costs]).median:,.0f}",
        "major page faults": lambda costs: f"{Spread.of([cost.major_faults for cost in costs]).median:,.0f}",
        "VmHWM, MiB": most(lambda cost: cost.resident),
    }
    times = {"wall, s": spread(wall)} | rate | work
    start: dict[str, Column] = {"first tensor, s": lambda costs: f"{Spread.of(list(map(first, costs))).median:.4f}"}
    match scenario.name:
        case "pages":
            return times | {"residency": lambda costs: f"{min(map(residency, costs)):.3f}"}
        case "copy":
            return times
        case "first":
            return start | work
    return times | start | {"memory beyond, MiB": most(beyond)}


def _for(name: str, columns: dict[str, Column]) -> Iterable[Column]:
    """Return the columns of a contender; fio has only its time."""
    if name != FIO:
        return columns.values()
    return [column if title in ("wall, s", "GiB/s") else (lambda _: "") for title, column in columns.items()]
