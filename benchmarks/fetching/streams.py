"""SHA-256 without a fetch, as a scenario: several parallel streams and hashlib (`benchmarks.lanes`), and `openssl speed`."""

from __future__ import annotations

from benchmarks import lanes
from benchmarks.measuring import GB, Cost
from benchmarks.rounds import Measured
from benchmarks.surroundings import openssl_speed
from fetcher.integrity.lanes import available

SCENARIO = "sha256"
COUNTS = (1, 2, 4, 8, 16)
SPEED = "openssl speed"


def ours(streams: int) -> str:
    return f"lanes, {streams} streams"


def hashlibs(streams: int) -> str:
    return f"hashlib, {streams} streams"


def measured(rounds: int) -> dict[str, Measured]:
    """Return the cost of each round, like a scenario of fetches."""
    names = [name(streams) for streams in COUNTS for name in (hashlibs, ours)]
    if not available():
        return _speed(rounds) | {name: Measured(failure="the extension is not built") for name in names}
    results = _speed(rounds) | {name: Measured() for name in names}
    for streams in COUNTS:
        for before, after in lanes.compare(streams, rounds=rounds):
            results[hashlibs(streams)].costs.append(Cost(before, before))
            results[ours(streams)].costs.append(Cost(after, after))
    return results


def _speed(rounds: int) -> dict[str, Measured]:
    """Return the seconds in which `openssl speed` hashes a GB on one core."""
    speeds = [openssl_speed() for _ in range(rounds)]
    costs: list[Cost | None] = [Cost(GB / speed, GB / speed) for speed in speeds if speed]
    return {SPEED: Measured(costs=costs, failure=None if costs else "openssl is missing")}
