"""What the fetcher must reach, as ratios within one run: each row a name, a way to compute it, and its floor or ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.measuring import Cost, MiB, Spread
from benchmarks.peers import (
    ARIA2C,
    BARE_LOOP,
    CURL,
    FETCHER,
    HASHLIB,
    HF_TRANSFER,
    LEAN,
    LIMITS,
    OPENSSL,
    PEERS,
    SAME_RANGES,
    SHA256SUM,
    SNAPSHOT,
    UNDIGESTED,
    VERIFY,
)
from benchmarks.running import Measured
from benchmarks.streams import SCENARIO as STREAMS
from benchmarks.streams import hashlibs, ours
from benchmarks.surroundings import processor_flags

Results = Mapping[str, Mapping[str, Measured]]
"""By the names of scenario and contender."""
Side = Callable[[Results], list[float]]
"""One side of a ratio: a value for each round. Raises Unmeasured."""
UNVERIFIED_PEERS = (HF_TRANSFER, ARIA2C, CURL, SNAPSHOT)


class Unmeasured(Exception):
    """What a row needs was not run, or failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """`above` divided by `below`, round by round, is at least `floor` or at most `ceiling`."""

    name: str
    against: str
    above: Side
    below: Side
    floor: float | None = None
    ceiling: float | None = None
    sha256: bool = False
    """Whether it rests on SHA-256 in software: a processor with SHA-NI is only reported."""

    def ratio(self, results: Results) -> Spread:
        """Of medians; least and most of single rounds. Raises Unmeasured."""
        above, below = self.above(results), self.below(results)
        rounds = [one / other for one, other in zip(above, below, strict=False)]
        return Spread(Spread.of(above).median / Spread.of(below).median, min(rounds), max(rounds))

    def wanted(self) -> str:
        return f"at least {self.floor:g}" if self.floor is not None else f"at most {self.ceiling:g}"

    def verdict(self, value: float) -> str:
        if self.sha256 and "sha_ni" in processor_flags():
            return "SHA-NI"
        holds = (self.floor is None or value >= self.floor) and (self.ceiling is None or value <= self.ceiling)
        return "pass" if holds else "**fail**"


def wall(cost: Cost) -> float:
    return cost.wall


def cpu(cost: Cost) -> float:
    return cost.cpu


def anonymous(cost: Cost) -> float:
    return float(cost.anonymous)


def taken(results: Results, scenario: str, contender: str, figure: Callable[[Cost], float]) -> list[float]:
    """For each round that counts. Raises Unmeasured."""
    measured = results.get(scenario, {}).get(contender)
    if measured is None:
        raise Unmeasured("not run")
    if measured.failure is not None:
        raise Unmeasured(f"{contender}: {measured.failure}")
    if not measured.kept():
        raise Unmeasured(f"{contender}: every round was discarded")
    return [figure(cost) for cost in measured.kept()]


def allowed(_: Cost) -> float:
    """Bytes: the fetcher's default for `--memory-limit`, and what interpreter and TLS may take beyond it."""
    return float((256 + 64) * MiB)


def of(scenario: str, contender: str, figure: Callable[[Cost], float] = wall) -> Side:
    return lambda results: taken(results, scenario, contender, figure)


def fastest_of(scenario: str, peers: Sequence[str]) -> Side:
    """The peer with the least median of wall time; who failed is left out."""
    return lambda results: taken(results, scenario, fastest(results, scenario, peers), wall)


def fastest(results: Results, scenario: str, peers: Sequence[str]) -> str:
    """Its name. Raises Unmeasured when there is none."""
    medians = {}
    for name in peers:
        with suppress(Unmeasured):
            medians[name] = Spread.of(taken(results, scenario, name, wall)).median
    if not medians:
        raise Unmeasured("no peer was run")
    return min(medians, key=lambda name: medians[name])


def followed(side: Side, following: Side) -> Side:
    return lambda results: [one + other for one, other in zip(side(results), following(results), strict=False)]


def longer(side: Side, other: Side) -> Side:
    return lambda results: [max(pair) for pair in zip(side(results), other(results), strict=False)]


def _verified(name: str, scenario: str, *, sha256sum: float, openssl: float) -> list[Row]:
    checks = ((SHA256SUM, sha256sum), (OPENSSL, openssl))
    return [
        Row(
            name,
            f"the fastest peer, then parallel `{check}`",
            followed(fastest_of(scenario, PEERS), of(scenario, check)),
            of(scenario, FETCHER),
            floor=floor,
            sha256=True,
        )
        for check, floor in checks
    ]


def _streams(count: int, *, floor: float) -> Row:
    name = f"SHA-256 of {count} stream{'s' if count > 1 else ''}, one processor"
    return Row(name, "hashlib", of(STREAMS, hashlibs(count)), of(STREAMS, ours(count)), floor=floor, sha256=True)


MANY_STREAMS = 4.0 if "avx512f" in processor_flags() else 2.5
NOT_SLOWER = 0.97
"""What hashlib itself reaches against hashlib on a noisy machine."""

ROWS = (
    Row("unverified wall time, 4 shards", "the fastest of hf_transfer, aria2c, curl, snapshot_download",
        fastest_of("four", UNVERIFIED_PEERS), of("four", UNDIGESTED), floor=1.2),
    Row("processor time, 4 shards", "hf_transfer, same ranges", of("lean", SAME_RANGES, cpu), of("lean", LEAN, cpu), floor=1.7),
    Row("processor time, 4 shards", "the bare loop", of("lean", LEAN, cpu), of("lean", BARE_LOOP, cpu), ceiling=1.5),
    _streams(16, floor=MANY_STREAMS),
    _streams(4, floor=1.3),
    *(_streams(count, floor=NOT_SLOWER) for count in (1, 2, 8)),
    *_verified("verified wall time, 16 shards", "shards", sha256sum=3.0, openssl=2.2),
    *_verified("verified wall time, 4 shards", "four", sha256sum=1.8, openssl=1.2),
    Row("verified wall time, 1 file", "the longer of its unverified transfer and hashlib over the file",
        of("single", FETCHER), longer(of("single", UNDIGESTED), of("single", HASHLIB)), ceiling=1.1),
    *_verified("TLS, verified wall time, 16 shards", "tls", sha256sum=2.0, openssl=2.0),
    Row("link of 20 ms, 2 Gbit/s, a third for one flow, verified", "what the link carries: the fastest of all others",
        fastest_of("link", (*PEERS, *LIMITS)), of("link", FETCHER), floor=0.95),
    Row("`fetcher verify`, warm files", "parallel `sha256sum`",
        of("verify", SHA256SUM), of("verify", VERIFY), floor=20, sha256=True),
    Row("`fetcher verify`, warm files", "parallel `openssl dgst`",
        of("verify", OPENSSL), of("verify", VERIFY), floor=10, sha256=True),
    Row("peak anonymous memory, 1 GiB", "`--memory-limit` + 64 MiB",
        of("growth-1", FETCHER, anonymous), of("growth-1", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "`--memory-limit` + 64 MiB",
        of("growth-8", FETCHER, anonymous), of("growth-8", FETCHER, allowed), ceiling=1),
    Row("peak anonymous memory, 8 GiB", "the same at 1 GiB",
        of("growth-8", FETCHER, anonymous), of("growth-1", FETCHER, anonymous), ceiling=1.1),
)  # fmt: skip
