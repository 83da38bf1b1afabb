"""Ratios within one run: each row has a name, two sides, and a floor or ceiling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from benchmarks.measuring import GB, Cost, Spread
from benchmarks.rounds import Measured
from benchmarks.surroundings import SHA_EXTENSIONS

Results = Mapping[str, Mapping[str, Measured]]
"""Measurements by the names of scenario and contender."""
Side = Callable[[Results], list[float]]
"""One side of a ratio: returns a value for each round. Raises Unmeasured."""


class Unmeasured(Exception):
    """A run that a row needs is missing or failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio of `above` to `below` that must be at least `floor` or at most `ceiling`, or is only reported."""

    name: str
    against: str
    above: Side
    below: Side
    floor: float | None = None
    ceiling: float | None = None
    hashing: Literal["software", "extensions"] | None = None
    """How SHA-256 must be computed for the ratio to have a verdict. None: the ratio does not depend on it."""

    def ratio(self, results: Results) -> Spread:
        """Return the ratio of medians, and the minimum and maximum ratio of single rounds. Raises Unmeasured."""
        above, below = self.above(results), self.below(results)
        rounds = [one / other for one, other in zip(above, below, strict=False)]
        return Spread(Spread.of(above).median / Spread.of(below).median, min(rounds), max(rounds))

    def wanted(self) -> str:
        if self.floor is None and self.ceiling is None:
            return "-"
        return f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"

    def verdict(self, value: float, *, flags: Collection[str]) -> str:
        """Return the verdict on a value; `flags` are those of the measuring processor."""
        if self.hashing == "software" and SHA_EXTENSIONS & set(flags):
            return "SHA-NI"
        if self.hashing == "extensions" and not SHA_EXTENSIONS & set(flags):
            return "no SHA-NI"
        if self.wanted() == "-":
            return "-"
        holds = (self.floor is None or value >= self.floor) and (self.ceiling is None or value <= self.ceiling)
        return "pass" if holds else "**fail**"


def wall(cost: Cost) -> float:
    return cost.wall


def cpu(cost: Cost) -> float:
    return cost.cpu


def server(cost: Cost) -> float:
    """Return the server's processor time. Raises Unmeasured."""
    if cost.server is None:
        raise Unmeasured("the server's processor time was not measured")
    return cost.server


def gigabytes(cost: Cost) -> float:
    """Return the GB that were copied. Raises Unmeasured."""
    if cost.copied is None:
        raise Unmeasured("nothing was copied")
    return cost.copied / GB


def cpu_of_a_gigabyte(cost: Cost) -> float:
    return cost.cpu / gigabytes(cost)


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


def beyond(side: Side, less: Side) -> Side:
    """Return what `side` has more than `less`."""
    return lambda results: [one - other for one, other in zip(side(results), less(results), strict=False)]


def times(side: Side, other: Side) -> Side:
    return lambda results: [one * factor for one, factor in zip(side(results), other(results), strict=False)]


def longer(side: Side, other: Side) -> Side:
    return lambda results: [max(pair) for pair in zip(side(results), other(results), strict=False)]


def scaled(side: Side, factor: float) -> Side:
    return lambda results: [value * factor for value in side(results)]
