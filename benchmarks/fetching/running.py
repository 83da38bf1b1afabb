"""Run a scenario: all contenders in turn, several rounds, one copy at a time, every copy compared with the served files."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.copies import Place
from benchmarks.disk import agree, probe, wait_until_idle
from benchmarks.fetching.commands import Programs, Task, write_lists
from benchmarks.fetching.peers import CONTENDERS, FETCHER
from benchmarks.fetching.scenarios import Scenario
from benchmarks.fetching.server import Server
from benchmarks.measuring import Cost, Failed
from benchmarks.memory import have_ready
from benchmarks.rounds import Entry, Measured, interleaved, prepared

PROBE = 1 << 30
"""Maximum bytes that a probe of the disk writes: a second or two."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The surroundings of a scenario."""

    scenario: Scenario
    server: Server
    programs: Programs
    place: Place

    def task(self) -> Task:
        lists = self.place.scratch / "lists"
        return Task(self.server, self.place.destination, self.scenario.connections, lists, self.programs)

    def copied(self) -> list[str]:
        """Return the paths of the copy's files."""
        return [str(self.place.destination / file.name) for file in self.server.repository.files]


Attempt = Callable[[Stage, Sequence[str]], Cost | None]
"""One run of a command. Returns None if the run does not count. Raises Failed."""


def play(stage: Stage, *, rounds: int) -> dict[str, Measured]:
    """Run the scenario and return the measurements by contender. Raises Failed if the preparation failed."""
    write_lists(stage.server, stage.place.scratch / "lists")
    stage.server.repository.warm()
    match stage.scenario.kind:
        case "fetch":
            return _in_turn(stage, rounds, _fetched)
        case "disk":
            return _in_turn(stage, rounds, _durable)
        case "resume":
            return _in_turn(stage, rounds, _resumed)
        case "hit":
            return _hits(stage, rounds)
        case "verify":
            with stage.place.empty():
                stage.place.run(CONTENDERS[FETCHER].ways[0](stage.task()))
                return _in_turn(stage, rounds, _fetched)


def _in_turn(stage: Stage, rounds: int, attempt: Attempt) -> dict[str, Measured]:
    entries = {name: _entry(stage, name, attempt) for name in stage.scenario.contenders}
    return interleaved(entries, stage.place.wording, rounds=rounds)


def _entry(stage: Stage, name: str, attempt: Attempt) -> Entry:
    contender = CONTENDERS[name]
    other = partial(_hashed, stage) if contender.hashes else stage.place.run
    return Entry(
        ways=tuple(tuple(way(stage.task())) for way in contender.ways),
        trial=partial(_fetched, stage) if contender.fetches else other,
        attempt=partial(attempt, stage) if contender.fetches else other,
        missing=contender.missing(),
    )


def _fetched(stage: Stage, command: Sequence[str]) -> Cost:
    before = stage.server.processor_time()
    cost = stage.place.fetched(command)
    return replace(cost, server=stage.server.processor_time() - before, copied=stage.scenario.shape.total)


def _hashed(stage: Stage, command: Sequence[str]) -> Cost:
    """Measure a command that prints the SHA-256 of every served file. Raises Failed if one is missing: `xargs` without names
    succeeds, and hashes nothing."""
    cost = stage.place.run(command)
    printed = set(re.findall(r"\b[0-9a-f]{64}\b", stage.place.said()))
    if missing := [file.name for file in stage.server.repository.files if file.sha256 not in printed]:
        raise Failed(f"{len(missing)} files were not hashed, such as {missing[0]}")
    return cost


def _durable(stage: Stage, command: Sequence[str]) -> Cost | None:
    """Measure a fetch and the sync of its files, between two probes of the disk. Returns None if the probes disagree."""
    size = min(PROBE, stage.scenario.shape.total)
    with stage.place.empty():
        wait_until_idle(stage.place.copies)
        before = probe(stage.place.copies, size=size)
        wait_until_idle(stage.place.copies)
        have_ready(stage.scenario.shape.total)
        cost = stage.place.run(command).then(stage.place.run(["sync", *stage.copied()]))
        wait_until_idle(stage.place.copies)
        after = probe(stage.place.copies, size=size)
        stage.place.compare()
        return cost if agree(before, after) else None


def _resumed(stage: Stage, command: Sequence[str]) -> Cost:
    """Kill a run after half of the bytes were written, and measure the next run."""
    with stage.place.empty():
        half = stage.scenario.shape.total // 2
        stage.place.run(command, enough=lambda watch: watch.written >= half)
        before = _settled(stage.server)
        have_ready(stage.scenario.shape.total)
        cost = stage.place.run(command)
        stage.place.compare()
        return replace(cost, received=_settled(stage.server) - before)


def _hits(stage: Stage, rounds: int) -> dict[str, Measured]:
    """Measure runs on a complete copy. Not interleaved: each contender's copy would need space."""
    measured = {}
    for name in stage.scenario.contenders:
        measured[name] = prepared(_entry(stage, name, _fetched), stage.place.wording)
        with stage.place.empty():
            for _ in range(rounds + 1):
                measured[name].add(stage.place.run)
            del measured[name].costs[:1]
    return measured


def _settled(server: Server) -> int:
    """Return the bytes sent, after the server has noticed that a client is gone."""
    count = -1
    while count != (count := server.sent()):
        time.sleep(0.3)
    return count
