"""The comparison of whole fetches: everything installed, served, played and reported."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from benchmarks.commands import Programs
from benchmarks.installation import peers_python
from benchmarks.link import CAP, linked, unavailable
from benchmarks.measuring import GB, Failed
from benchmarks.publishing import Repository, publish
from benchmarks.ratios import Results
from benchmarks.report import Setting, report
from benchmarks.running import Stage, play
from benchmarks.scenarios import Scenario
from benchmarks.server import serving
from benchmarks.streams import SCENARIO as STREAMS
from benchmarks.streams import measured as streams
from benchmarks.surroundings import commit, machine, versions

ROOM = 1.1
"""Of a copy's size: what contenders keep beside it, and a reserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`disk` and `memory` are directories; what is written below them is removed."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    scale: float
    fetcher: str
    lean: tuple[str, ...]
    disk: Path
    memory: Path
    target: Path | None


def compare(options: Options) -> str:
    """Play all scenarios and return the report; it is also written after each of them when there is a place for it."""
    programs = Programs(options.fetcher, str(peers_python()), options.lean)
    scenarios = [scenario.scaled(options.scale) for scenario in options.scenarios]
    setting = _setting(options, programs)
    results = {STREAMS: streams(options.rounds)}
    with _directory(options.disk) as disk, _directory(options.memory) as memory:
        for shape, group in groupby(scenarios, key=lambda scenario: scenario.shape):
            repository = publish(disk / "served", shape)
            for scenario in group:
                copies = disk / "copies" if scenario.on_disk else memory
                copies.mkdir(exist_ok=True)
                print(f"{scenario.name}: {scenario.title}, {shape}", file=sys.stderr)
                if reason := _obstacle(scenario, copies):
                    setting.skipped[scenario.name] = reason
                    continue
                try:
                    with _staged(scenario, repository, programs, copies=copies, scratch=disk) as stage:
                        results[scenario.name] = play(stage, rounds=options.rounds)
                except Failed as error:
                    setting.skipped[scenario.name] = str(error)
                _save(options, setting, scenarios, results)
            shutil.rmtree(repository.directory)
    return report(setting, scenarios, results)


def _obstacle(scenario: Scenario, copies: Path) -> str | None:
    """Why it can't be played here."""
    wanted, free = scenario.shape.total, shutil.disk_usage(copies).free
    if free < wanted * ROOM:
        return f"{wanted / GB:.1f} GB do not fit into the {free / GB:.1f} GB that are free"
    return unavailable() if scenario.link else None


def _setting(options: Options, programs: Programs) -> Setting:
    return Setting(
        command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        machine=machine(),
        versions=versions(options.fetcher, Path(programs.peers)),
        commit=commit(),
        rounds=options.rounds,
        scale=options.scale,
        date=datetime.now(UTC).date().isoformat(),
        skipped={},
    )


@contextmanager
def _directory(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="weightlift-bench-", dir=parent) as name:
        yield Path(name)


@contextmanager
def _staged(scenario: Scenario, repository: Repository, programs: Programs, *, copies: Path, scratch: Path) -> Iterator[Stage]:
    """The server, and the link to it where there is one."""
    with ExitStack() as stack:
        if scenario.link:
            link = stack.enter_context(linked(scratch / "link"))
            serve = serving(repository, scratch / "nginx", host=link.host, within=link.server, limit_rate=CAP)
            yield Stage(scenario, stack.enter_context(serve), programs, copies, scratch, within=link.client)
        else:
            serve = serving(repository, scratch / "nginx", tls=scenario.tls)
            yield Stage(scenario, stack.enter_context(serve), programs, copies, scratch)


def _save(options: Options, setting: Setting, scenarios: Sequence[Scenario], results: Results) -> None:
    if options.target is None:
        return
    from benchmarks.plots import draw  # a run without a report does without matplotlib

    options.target.parent.mkdir(parents=True, exist_ok=True)
    plots = draw(options.target, scenarios, results)
    options.target.write_text(report(setting, scenarios, results, plots=plots))
