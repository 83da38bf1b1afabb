"""Run several contenders in turn: first each in all its ways, then in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import Cost, Failed

Trial = Callable[[Sequence[str]], Cost]
"""One run of a command. Raises Failed."""
Attempt = Callable[[Sequence[str]], Cost | None]
"""Like `Trial`; returns None if the run does not count."""


@dataclass(slots=True)
class Measured:
    """The measurements of one contender in one scenario: the cost of each round (None: discarded), or its failure."""

    command: Sequence[str] = ()
    tried: dict[tuple[str, ...], str] = field(default_factory=dict)
    """The outcome of each way before the rounds, by its displayed command. The fastest continues."""
    costs: list[Cost | None] = field(default_factory=list)
    failure: str | None = None

    def kept(self) -> list[Cost]:
        return [cost for cost in self.costs if cost is not None]

    def add(self, attempt: Attempt) -> None:
        """Run one more round, unless the contender has failed before."""
        if self.failure is not None:
            return
        try:
            self.costs.append(attempt(self.command))
        except Failed as error:
            self.failure = str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One contender in a scenario. `ways`: commands, at least one. `missing`: the reason why it cannot run."""

    ways: tuple[tuple[str, ...], ...]
    trial: Trial
    attempt: Attempt
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Wording:
    """Replaces directories of this machine and this run in displayed commands."""

    names: Mapping[Path, str]

    def of(self, command: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self._renamed, command))

    def _renamed(self, word: str) -> str:
        for directory, name in self.names.items():
            word = word.replace(str(directory), name)
        return word


def interleaved(entries: Mapping[str, Entry], wording: Wording, *, rounds: int) -> dict[str, Measured]:
    """Run interleaved rounds, so that a busy moment affects all contenders. A different contender starts each round."""
    measured = {name: prepared(entry, wording) for name, entry in entries.items()}
    names = list(measured)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            measured[name].add(entries[name].attempt)
    return measured


def prepared(entry: Entry, wording: Wording) -> Measured:
    """Run each way of a contender once, which warms programs and libraries, and choose the fastest."""
    if entry.missing:
        return Measured(failure=entry.missing)
    walls: dict[tuple[str, ...], float] = {}
    outcomes: dict[tuple[str, ...], str] = {}
    for command in dict.fromkeys(entry.ways):
        try:
            walls[command] = entry.trial(command).wall
            outcomes[wording.of(command)] = f"{walls[command]:.2f} s"
        except Failed as error:
            outcomes[wording.of(command)] = str(error)
    if not walls:
        return Measured(failure="; ".join(outcomes.values()))
    fastest = min(walls, key=lambda command: walls[command])
    return Measured(fastest, outcomes)
