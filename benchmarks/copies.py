"""Runs of contenders that copy served files into a directory: one copy at a time, each compared with the served files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installation import CHECKOUT
from benchmarks.measuring import Cost, Failed, Watch, run
from benchmarks.memory import have_ready
from benchmarks.publishing import Repository
from benchmarks.rounds import Wording

TIMEOUT = 900.0
"""Maximum seconds of one run: 8 GiB at 10 MB/s."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where contenders write: `copies`. The bench itself writes to `scratch`.

    `environ` are all variables of the contenders. `within`: a prefix of each command, such as one that enters a network
    namespace.
    """

    repository: Repository
    environ: Mapping[str, str]
    copies: Path
    scratch: Path
    within: tuple[str, ...] = ()

    @property
    def destination(self) -> Path:
        return self.copies / "copy"

    @property
    def wording(self) -> Wording:
        names = {self.destination: "COPY", self.repository.directory: "SERVED", self.scratch: "SCRATCH"}
        return Wording({**names, CHECKOUT: "."})

    def run(self, command: Sequence[str], *, enough: Callable[[Watch], bool] | None = None) -> Cost:
        """Run a command and return its cost. Raises Failed."""
        words = [*self.within, *command]
        return run(words, log=self.scratch / "log", environ=self.environ, timeout=TIMEOUT, enough=enough)

    def said(self) -> str:
        """Return what the last command printed."""
        return (self.scratch / "log").read_text(errors="replace")

    def fetched(self, command: Sequence[str]) -> Cost:
        """Run a command into an empty directory and compare the copy. Raises Failed."""
        with self.empty():
            have_ready(self.repository.shape.total)
            cost = self.run(command)
            self.compare()
            return cost

    @contextmanager
    def empty(self) -> Iterator[None]:
        """Create an empty directory for one copy, and remove it afterwards."""
        self.destination.mkdir()
        try:
            yield
        finally:
            shutil.rmtree(self.destination)

    def compare(self) -> None:
        """Raise Failed if a file of the copy is missing or differs."""
        if wrong := self.repository.arrived(self.destination):
            raise Failed(wrong)
