"""Run the comparison of loaders: install the peers, write checkpoints, run all scenarios, write the report."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disk import wait_until_idle, workspace
from benchmarks.installation import peers_python
from benchmarks.loading.checkpoint import joined, make
from benchmarks.loading.commands import Data, Programs, Task, environment, peer
from benchmarks.loading.report import CONDITIONS, report
from benchmarks.loading.running import Stage, play
from benchmarks.loading.scenarios import Scenario
from benchmarks.measuring import GB, Failed, MiB, run
from benchmarks.ratios import Results
from benchmarks.rounds import Measured
from benchmarks.surroundings import Setting, versions

SHARDS, SIZE = 4, 1024 * MiB
PEERS = ("torch", "safetensors", "runai-model-streamer", "fastsafetensors", "tensorizer")
TOOLS = ("fio", "vmtouch", "cat", "cp")
COPIES = 3.2
"""Copies of the tensors on the disk, with a reserve."""
WRITING = 600.0
"""Maximum seconds for tensorizer to write its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a comparison. `disk` and `memory` are directories; files written below them are removed."""

    scenarios: tuple[Scenario, ...]
    rounds: int
    scale: float
    loader: str
    disk: Path
    memory: Path
    target: Path | None


def compare(options: Options) -> str:
    """Run all scenarios and return the report. If `target` is set, write it after each scenario.

    Raises Failed if the checkpoints cannot be written.
    """
    programs = Programs(options.loader, str(peers_python("loading")))
    known = versions(options.loader, Path(programs.peers), theirs=PEERS, tools=TOOLS)
    setting = Setting.here(versions=known, rounds=_rounds(options), scale=options.scale, conditions=CONDITIONS)
    results: dict[str, Mapping[str, Measured]] = {}
    with workspace(options.disk) as disk, workspace(options.memory) as memory:
        print("writing the checkpoints", file=sys.stderr)
        data = made(disk, programs, size=int(SIZE * options.scale))
        for scenario in options.scenarios:
            print(f"{scenario.name}: {scenario.title}", file=sys.stderr)
            try:
                wait_until_idle(disk)
                stage = Stage(scenario, data, programs, memory, disk)
                results[scenario.name] = play(stage, rounds=scenario.rounds or options.rounds)
            except Failed as error:
                setting.skipped[scenario.name] = str(error)
            _save(options, setting, results, size=data.shards.size)
    return report(setting, options.scenarios, results, size=data.shards.size)


def _rounds(options: Options) -> str:
    own = [f"{scenario.rounds} in `{scenario.name}`" for scenario in options.scenarios if scenario.rounds]
    return f"{options.rounds} ({', '.join(own)})" if own else str(options.rounds)


def _save(options: Options, setting: Setting, results: Results, *, size: int) -> None:
    if options.target is None:
        return
    from benchmarks.loading.plots import draw  # a run without a report needs no matplotlib

    options.target.parent.mkdir(parents=True, exist_ok=True)
    plots = draw(options.target, options.scenarios, results)
    options.target.write_text(report(setting, options.scenarios, results, size=size, plots=plots))


def made(directory: Path, programs: Programs, *, size: int) -> Data:
    """Write the same tensors in shards of `size` bytes, in one file, and in tensorizer's format. Raises Failed."""
    if (free := shutil.disk_usage(directory).free) < (wanted := COPIES * SHARDS * size):
        raise Failed(f"{wanted / GB:.1f} GB do not fit into {free / GB:.1f} GB of free space; choose another disk with --disk")
    shards = make(directory / "shards", shards=SHARDS, size=size)
    one = joined(shards, directory / "one", shards=SHARDS, size=size)
    data = Data(shards, one, directory / "tensorized")
    task = Task(data, directory / "outcome", directory / "copy", programs)
    write = peer("tensorized", "--write", str(data.tensorized))(task)
    run(write, log=directory / "log", environ=environment(directory), timeout=WRITING)
    return data
