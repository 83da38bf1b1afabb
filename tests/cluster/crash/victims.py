"""Agents and controllers as processes to kill: at a step, or at any moment.

They are forked from one process that has imported everything, so that a restart takes tenths of a second and no core.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal

from cluster.agent import main as agent
from cluster.client.errors import NotLeading
from cluster.controller import main as controller

Role = Literal["agent", "controller"]
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload([__name__, "fetcher.engine.pipeline", "fetcher.sources.hub", "fetcher.transport.client"])
_MAINS = {"agent": agent.main, "controller": controller.main}


def kind_of(step: str) -> str:
    """The name of a step without the names of objects: what is written of an Event or of a second node is the same step."""
    return " ".join(step.split()[:2])


@dataclass(slots=True)
class Victim:
    """One process after another, with the same words; their lines go to a log in `directory`."""

    role: Role
    words: Sequence[str]
    directory: Path
    number: int = 0
    process: ForkServerProcess | None = None
    deaths: list[str] = field(default_factory=list)
    """The last step of each process that was killed at one."""

    def start(self, *more: str, at: int | None = None, spared: Collection[str] | None = None) -> None:
        """Start it. It is killed at the step of the number `at`, or at the first one whose kind is not `spared`."""
        assert self.process is None
        self.number += 1
        words = [*self.words, *more]
        self.process = _FORKING.Process(
            target=_run, args=(self.role, words, self.steps, self.log, at, spared), name=f"{self.role}-{self.number}"
        )
        self.process.start()

    @property
    def steps(self) -> Path:
        return self.directory / f"{self.role}-{self.number}.steps"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.role}.log"

    @property
    def is_dead(self) -> bool:
        return self.process is None or self.process.exitcode is not None

    def kill(self) -> None:
        """Kill it if it lives, and take note of its end. It may have ended by itself only if it could not renew its Lease."""
        if self.process is None:
            return
        by_itself = self.process.exitcode is not None
        self.process.kill()
        self.process.join()
        code, self.process = self.process.exitcode, None
        lost = self.role == "controller" and code == NotLeading.exit_code  # on a machine that was busy for ten seconds
        assert code == -signal.SIGKILL or lost, (self.role, code, self.log.read_text()[-4000:])
        if by_itself and not lost:
            self.deaths.append(self.steps.read_text().splitlines()[-1])

    def stop(self) -> None:
        """End it as its test ends, whatever became of it."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


@contextmanager
def ending(*victims: Victim) -> Iterator[None]:
    """End all victims with the block."""
    try:
        yield
    finally:
        for each in victims:
            each.stop()


def _run(role: Role, words: Sequence[str], steps: Path, log: Path, at: int | None, spared: Collection[str] | None) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    record = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = 0

    def step(name: str) -> None:
        nonlocal seen
        os.write(record, f"{name}\n".encode())
        if seen == at or (spared is not None and kind_of(name) not in spared):
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sys.exit(_MAINS[role](words, step=step))
