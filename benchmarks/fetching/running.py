"""Run a scenario: all contenders in turn, several rounds, one copy at a time, every copy compared with the served files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.disk import agree, probe, wait_until_idle
from benchmarks.fetching.commands import Programs, Task, environment, write_lists
from benchmarks.fetching.peers import CONTENDERS, FETCHER
from benchmarks.fetching.scenarios import Scenario
from benchmarks.fetching.server import Server
from benchmarks.installation import CHECKOUT
from benchmarks.measuring import Cost, Failed, Watch, run
from benchmarks.memory import have_ready
from benchmarks.rounds import Entry, Measured, Wording, interleaved, prepared

TIMEOUT = 900.0
"""Maximum seconds of one run: 8 GiB at 10 MB/s."""
PROBE = 1 << 30
"""Maximum bytes that a probe of the disk writes: a second or two."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The surroundings of a scenario. Contenders write to `copies`; the bench itself writes to `scratch`.

    `within`: a prefix of each command, such as one that enters a network namespace.
    """

    scenario: Scenario
    server: Server
    programs: Programs
    copies: Path
    scratch: Path
    within: tuple[str, ...] = ()

    def task(self) -> Task:
        lists = self.scratch / "lists"
        return Task(self.server, self.copies / "copy", self.scenario.connections, lists, self.programs)

    def copied(self) -> list[str]:
        """Return the paths of the copy's files."""
        return [str(self.task().destination / file.name) for file in self.server.repository.files]

    @property
    def wording(self) -> Wording:
        names = {self.task().destination: "COPY", self.server.repository.directory: "SERVED", self.scratch: "SCRATCH"}
        return Wording({**names, CHECKOUT: "."})

    def run(self, command: Sequence[str], *, enough: Callable[[Watch], bool] | None = None) -> Cost:
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        environ = environment(self.server, home)
        words = [*self.within, *command]
        return run(words, log=self.scratch / "log", environ=environ, timeout=TIMEOUT, enough=enough)


Attempt = Callable[[Stage, Sequence[str]], Cost | None]
"""One run of a command. Returns None if the run does not count. Raises Failed."""


def play(stage: Stage, *, rounds: int) -> dict[str, Measured]:
    """Run the scenario and return the measurements by contender. Raises Failed if the preparation failed."""
    write_lists(stage.server, stage.scratch / "lists")
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
            with _empty(stage.copies):
                stage.run(CONTENDERS[FETCHER].ways[0](stage.task()))
                return _in_turn(stage, rounds, _fetched)


def _in_turn(stage: Stage, rounds: int, attempt: Attempt) -> dict[str, Measured]:
    entries = {name: _entry(stage, name, attempt) for name in stage.scenario.contenders}
    return interleaved(entries, stage.wording, rounds=rounds)


def _entry(stage: Stage, name: str, attempt: Attempt) -> Entry:
    contender = CONTENDERS[name]
    return Entry(
        ways=tuple(tuple(way(stage.task())) for way in contender.ways),
        trial=partial(_fetched, stage) if contender.fetches else stage.run,
        attempt=partial(attempt, stage) if contender.fetches else stage.run,
        missing=contender.missing(),
    )


def _fetched(stage: Stage, command: Sequence[str]) -> Cost:
    with _empty(stage.copies):
        have_ready(stage.scenario.shape.total)
        cost = stage.run(command)
        _compare(stage)
        return cost


def _durable(stage: Stage, command: Sequence[str]) -> Cost | None:
    """Measure a fetch and the sync of its files, between two probes of the disk. Returns None if the probes disagree."""
    size = min(PROBE, stage.scenario.shape.total)
    with _empty(stage.copies):
        wait_until_idle(stage.copies)
        before = probe(stage.copies, size=size)
        wait_until_idle(stage.copies)
        have_ready(stage.scenario.shape.total)
        cost = stage.run(command).then(stage.run(["sync", *stage.copied()]))
        wait_until_idle(stage.copies)
        after = probe(stage.copies, size=size)
        _compare(stage)
        return cost if agree(before, after) else None


def _resumed(stage: Stage, command: Sequence[str]) -> Cost:
    """Kill a run after half of the bytes were written, and measure the next run."""
    with _empty(stage.copies):
        half = stage.scenario.shape.total // 2
        stage.run(command, enough=lambda watch: watch.written >= half)
        before = _settled(stage.server)
        have_ready(stage.scenario.shape.total)
        cost = stage.run(command)
        _compare(stage)
        return replace(cost, received=_settled(stage.server) - before)


def _hits(stage: Stage, rounds: int) -> dict[str, Measured]:
    """Measure runs on a complete copy. Not interleaved: each contender's copy would need space."""
    measured = {}
    for name in stage.scenario.contenders:
        measured[name] = prepared(_entry(stage, name, _fetched), stage.wording)
        with _empty(stage.copies):
            for _ in range(rounds + 1):
                measured[name].add(stage.run)
            del measured[name].costs[:1]
    return measured


def _settled(server: Server) -> int:
    """Return the bytes sent, after the server has noticed that a client is gone."""
    count = -1
    while count != (count := server.sent()):
        time.sleep(0.3)
    return count


@contextmanager
def _empty(copies: Path) -> Iterator[None]:
    """Create an empty directory for one copy, and remove it afterwards."""
    copy = copies / "copy"
    copy.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(copy)


def _compare(stage: Stage) -> None:
    if wrong := stage.server.repository.arrived(stage.task().destination):
        raise Failed(wrong)
