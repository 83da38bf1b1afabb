"""Run a scenario: all contenders in turn, several rounds, files cold or warm before each, every result compared."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.disk import agree
from benchmarks.installation import CHECKOUT
from benchmarks.loading.commands import Data, Programs, Task, environment
from benchmarks.loading.contenders import CONTENDERS, FIO, Contender
from benchmarks.loading.limit import Limit
from benchmarks.loading.scenarios import Scenario
from benchmarks.loading.temperature import chill, heat, residency
from benchmarks.measuring import Cost, Failed, run
from benchmarks.memory import have_ready
from benchmarks.rounds import Entry, Measured, Wording, interleaved, prepared

TIMEOUT = 300.0
"""Maximum seconds of one run: 4 GiB at 15 MB/s."""
TRIES = 2
"""Maximum tries for each round, if the disk must have the same speed before and after."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The surroundings of a scenario: `copies` is tmpfs; the bench itself writes to `scratch`."""

    scenario: Scenario
    data: Data
    programs: Programs
    copies: Path
    scratch: Path

    @property
    def task(self) -> Task:
        return Task(self.data, self.scratch / "outcome", self.copies / "copy", self.programs)

    @property
    def wording(self) -> Wording:
        data, task = self.data, self.task
        names = {data.shards.directory: "SHARDS", data.one.directory: "ONE", task.copy: "COPY", self.scratch: "SCRATCH"}
        pythons = dict.fromkeys((Path(self.programs.peers), Path(sys.executable)), "python")
        return Wording({**names, **pythons, Path(self.programs.loader): "loader", CHECKOUT: "."})

    def entry(self, name: str) -> Entry:
        contender = CONTENDERS[name]
        once = partial(self.run, contender)
        return Entry(
            ways=tuple(tuple(way(self.task)) for way in contender.ways), trial=once, attempt=once, missing=contender.missing()
        )

    def run(self, contender: Contender, command: Sequence[str]) -> Cost:
        """Run the command once, with files cold or warm as in the scenario. Raises Failed."""
        self._temper(command)
        task = self.task
        task.outcome.unlink(missing_ok=True)
        shutil.rmtree(task.copy, ignore_errors=True)
        size = self.data.shards.size * 5 // 4
        have_ready(size)  # clients repeat this: during their imports the hypervisor can reclaim it
        try:
            environ = environment(self.scratch, memory=size)
            cost = run(command, log=self.scratch / "log", environ=environ, timeout=TIMEOUT)
            return self._compared(contender, cost)
        finally:
            shutil.rmtree(task.copy, ignore_errors=True)

    def _temper(self, command: Sequence[str]) -> None:
        """Make files cold, or only those of the command warm, so that all contenders have the same free memory."""
        if self.scenario.temperature == "cold":
            chill(self.data.files())
        else:
            words = set(command)
            heat(file for file in self.data.files() if not words.isdisjoint((str(file), str(file.parent))))

    def _compared(self, contender: Contender, cost: Cost) -> Cost:
        match contender.result:
            case "tensors" | "first":
                return _timed_inside(cost, self.task.outcome, self.data.shards.digests, whole=contender.result == "tensors")
            case "pages":
                return replace(cost, residency=residency(self.data.shards.files))
            case "copy":
                if wrong := self.data.shards.arrived(self.task.copy):
                    raise Failed(wrong)
                return cost


def play(stage: Stage, *, rounds: int) -> dict[str, Measured]:
    """Run the scenario and return the measurements by contender. Raises Failed if the preparation failed."""
    chill(stage.data.files())
    entries = {name: stage.entry(name) for name in stage.scenario.contenders}
    if stage.scenario.fio is None:
        return interleaved(entries, stage.wording, rounds=rounds)
    limit = Limit.found(stage.data.shards.files)
    size = stage.data.shards.size
    if stage.scenario.fio == "among":
        return interleaved({**entries, FIO: _reading(limit, size)}, stage.wording, rounds=rounds)
    measured = {name: prepared(entry, stage.wording) for name, entry in entries.items()}
    measured[FIO] = Measured(limit.words, {stage.wording.of(limit.words): "at the least queue depth"})
    _around(measured, entries, limit, size, rounds=rounds)
    return measured


def _reading(limit: Limit, size: int) -> Entry:
    def read(_: Sequence[str]) -> Cost:
        return Cost(size / limit.rate(), cpu=0.0)

    return Entry(ways=(tuple(limit.words),), trial=read, attempt=read)


def _around(measured: Mapping[str, Measured], entries: Mapping[str, Entry], limit: Limit, size: int, *, rounds: int) -> None:
    """Measure between two reads by fio. A round in which they disagree is discarded and repeated."""
    fio, after = measured[FIO], limit.rate()
    for _ in range(rounds * TRIES):
        before = after
        for name, entry in entries.items():
            measured[name].add(entry.attempt)
        after = limit.rate()
        fio.costs.append(Cost(size * 2 / (before + after), cpu=0.0))
        if not agree(before, after):
            for each in measured.values():
                each.costs[-1:] = [None]
        if len(fio.kept()) == rounds:
            break


def _timed_inside(cost: Cost, outcome: Path, digests: Mapping[str, str], *, whole: bool) -> Cost:
    """Return the cost with the client's own timing. Raises Failed unless it loaded all tensors, or the first, correctly."""
    try:
        measured: dict[str, Any] = json.loads(outcome.read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"the client wrote no result: {error}") from error
    loaded: Mapping[str, str] = measured.pop("digests")
    if whole and loaded.keys() != digests.keys():
        raise Failed(f"loaded {len(loaded)} tensors instead of {len(digests)}")
    if wrong := [name for name, digest in loaded.items() if digests.get(name) != digest]:
        raise Failed(f"{wrong[0]} differs from the file")
    return replace(cost, **measured)
