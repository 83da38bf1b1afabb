"""Running a scenario: everybody in turn, several rounds, files cold or warm before each, every result compared afterwards."""

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
"""Seconds for one run; 4 GiB at 15 MB/s."""
TRIES = 2
"""How many rounds are tried for each that is wanted, where the disk must be as fast afterwards as before."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario is played: `copies` is tmpfs, `scratch` what the bench itself needs."""

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
        """Once, with everything as cold or warm as the scenario says. Raises Failed."""
        self._temper(command)
        task = self.task
        task.outcome.unlink(missing_ok=True)
        shutil.rmtree(task.copy, ignore_errors=True)
        size = self.data.shards.size * 5 // 4
        have_ready(size)  # and once more in a client, whose imports take longer than a hypervisor needs
        try:
            environ = environment(self.scratch, memory=size)
            cost = run(command, log=self.scratch / "log", environ=environ, timeout=TIMEOUT)
            return self._compared(contender, cost)
        finally:
            shutil.rmtree(task.copy, ignore_errors=True)

    def _temper(self, command: Sequence[str]) -> None:
        """Only what the command names is made warm, so that memory is left for everybody alike."""
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
    """All contenders of the scenario, by name. Raises Failed when what they need could not be prepared."""
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
    """Runs between two readings by fio; a round where those disagree tells nothing, and there is another one instead."""
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
    """What the client says of the part that counts. Raises Failed unless it brought every tensor, or the first of them."""
    try:
        said: dict[str, Any] = json.loads(outcome.read_text())
    except (OSError, ValueError) as error:
        raise Failed(f"said nothing of what it took: {error}") from error
    found: Mapping[str, str] = said.pop("digests")
    if whole and found.keys() != digests.keys():
        raise Failed(f"brought {len(found)} tensors instead of {len(digests)}")
    if wrong := [name for name, digest in found.items() if digests.get(name) != digest]:
        raise Failed(f"{wrong[0]} is not what the file holds")
    return replace(cost, **said)
