"""Ratios within one run: each row has a name, two sides, and a floor or ceiling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.measuring import Cost, Spread
from benchmarks.rounds import Measured

Results = Mapping[str, Mapping[str, Measured]]
"""Measurements by the names of scenario and contender."""
Side = Callable[[Results], list[float]]
"""One side of a ratio: returns a value for each round. Raises Unmeasured."""


class Unmeasured(Exception):
    """A run that a row needs is missing or failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio of `above` to `below` that must be at least `floor` or at most `ceiling`."""

    name: str
    against: str
    above: Side
    below: Side
    floor: float | None = None
    ceiling: float | None = None
    sha256: bool = False
    """True if the ratio depends on SHA-256 in software. On a processor with SHA-NI it has no verdict."""

    def ratio(self, results: Results) -> Spread:
        """Return the ratio of medians, and the minimum and maximum ratio of single rounds. Raises Unmeasured."""
        above, below = self.above(results), self.below(results)
        rounds = [one / other for one, other in zip(above, below, strict=False)]
        return Spread(Spread.of(above).median / Spread.of(below).median, min(rounds), max(rounds))

    def wanted(self) -> str:
        return f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"

    def verdict(self, value: float, *, flags: Collection[str]) -> str:
        """Return the verdict on a value; `flags` are those of the measuring processor."""
        if self.sha256 and "sha_ni" in flags:
            return "SHA-NI"
        holds = (self.floor is None or value >= self.floor) and (self.ceiling is None or value <= self.ceiling)
        return "pass" if holds else "**fail**"


def wall(cost: Cost) -> float:
    return cost.wall


def cpu(cost: Cost) -> float:
    return cost.cpu


def anonymous(cost: Cost) -> float:
    return float(cost.anonymous)


def figures(results: Results, scenario: str, contender: str, figure: Callable[[Cost], float]) -> list[float]:
    """Return the figure of each round that counts. Raises Unmeasured."""
    measured = results.get(scenario, {}).get(contender)
    if measured is None:
        raise Unmeasured("not run")
    if measured.failure is not None:
        raise Unmeasured(f"{contender}: {measured.failure}")
    if not measured.kept():
        raise Unmeasured(f"{contender}: every round was discarded")
    return [figure(cost) for cost in measured.kept()]


def of(scenario: str, contender: str, figure: Callable[[Cost], float] = wall) -> Side:
    return lambda results: figures(results, scenario, contender, figure)


def fastest_of(scenario: str, peers: Sequence[str]) -> Side:
    """Return the side of the peer with the least median wall time, without failed peers."""
    return lambda results: figures(results, scenario, fastest(results, scenario, peers), wall)


def fastest(results: Results, scenario: str, peers: Sequence[str]) -> str:
    """Return the name of the peer with the least median wall time. Raises Unmeasured if no peer was run."""
    medians = {}
    for name in peers:
        with suppress(Unmeasured):
            medians[name] = Spread.of(figures(results, scenario, name, wall)).median
    if not medians:
        raise Unmeasured("no peer was run")
    return min(medians, key=lambda name: medians[name])


def followed(side: Side, following: Side) -> Side:
    return lambda results: [one + other for one, other in zip(side(results), following(results), strict=False)]


def longer(side: Side, other: Side) -> Side:
    return lambda results: [max(pair) for pair in zip(side(results), other(results), strict=False)]


def scaled(side: Side, factor: float) -> Side:
    return lambda results: [value * factor for value in side(results)]
