"""Run the comparison of whole fetches: install the peers, serve the files, run all scenarios, write the report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.copies import Place
from benchmarks.disk import workspace
from benchmarks.fetching.commands import Programs, environment
from benchmarks.fetching.link import CAP, linked, unavailable
from benchmarks.fetching.report import CONDITIONS, report
from benchmarks.fetching.running import Stage, play
from benchmarks.fetching.scenarios import Scenario
from benchmarks.fetching.server import serving
from benchmarks.fetching.streams import SCENARIO as STREAMS
from benchmarks.fetching.streams import measured as streams
from benchmarks.installation import peers_python
from benchmarks.measuring import GB, Failed
from benchmarks.publishing import Repository, publish
from benchmarks.ratios import Results
from benchmarks.surroundings import Setting, versions

PEERS = ("hf_transfer", "huggingface_hub", "hf-xet", "httpx2", "kserve-storage")
TOOLS = ("nginx", "aria2c", "curl", "openssl", "sha256sum", "fio")
ROOM = 1.1
"""Required space as a multiple of a copy's size: files that contenders keep next to it, and a reserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a comparison. `disk` and `memory` are directories; files written below them are removed."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    scale: float
    fetcher: str
    lean: tuple[str, ...]
    disk: Path
    memory: Path
    target: Path | None


def compare(options: Options) -> str:
    """Run all scenarios and return the report. If `target` is set, write it after each scenario."""
    programs = Programs(options.fetcher, str(peers_python("fetching")), options.lean)
    scenarios = [scenario.scaled(options.scale) for scenario in options.scenarios]
    known = versions(options.fetcher, Path(programs.peers), theirs=PEERS, tools=TOOLS)
    setting = Setting.here(versions=known, rounds=str(options.rounds), scale=options.scale, conditions=CONDITIONS)
    results = {STREAMS: streams(options.rounds)}
    with workspace(options.disk) as disk, workspace(options.memory) as memory:
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
    """Return the reason why the scenario cannot run, or None."""
    wanted, free = scenario.shape.total, shutil.disk_usage(copies).free
    if free < wanted * ROOM:
        return f"{wanted / GB:.1f} GB do not fit into {free / GB:.1f} GB of free space"
    return unavailable() if scenario.link else None


@contextmanager
def _staged(scenario: Scenario, repository: Repository, programs: Programs, *, copies: Path, scratch: Path) -> Iterator[Stage]:
    """Start the server, and the link to it if the scenario has one."""
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if scenario.link:
            link = stack.enter_context(linked(scratch / "link"))
            serve, within = (
                serving(repository, scratch / "nginx", host=link.host, within=link.server, limit_rate=CAP),
                link.client,
            )
        else:
            serve, within = serving(repository, scratch / "nginx", tls=scenario.tls), ()
        server = stack.enter_context(serve)
        yield Stage(scenario, server, programs, Place(repository, environment(server, home), copies, scratch, within))


def _save(options: Options, setting: Setting, scenarios: Sequence[Scenario], results: Results) -> None:
    if options.target is None:
        return
    from benchmarks.fetching.plots import draw  # a run without a report needs no matplotlib

    options.target.parent.mkdir(parents=True, exist_ok=True)
    plots = draw(options.target, scenarios, results)
    options.target.write_text(report(setting, scenarios, results, plots=plots))
