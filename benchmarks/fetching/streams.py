"""SHA-256 of several parallel streams compared with hashlib, as a scenario; see `benchmarks.lanes`."""

from __future__ import annotations

from benchmarks import lanes
from benchmarks.measuring import Cost
from benchmarks.rounds import Measured
from fetcher.integrity.lanes import available

SCENARIO = "sha256"
COUNTS = (1, 2, 4, 8, 16)


def ours(streams: int) -> str:
    return f"lanes, {streams} streams"


def hashlibs(streams: int) -> str:
    return f"hashlib, {streams} streams"


def measured(rounds: int) -> dict[str, Measured]:
    """Return the cost of each round, like a scenario of fetches."""
    names = [name(streams) for streams in COUNTS for name in (hashlibs, ours)]
    if not available():
        return {name: Measured(failure="the extension is not built") for name in names}
    results = {name: Measured() for name in names}
    for streams in COUNTS:
        for before, after in lanes.compare(streams, rounds=rounds):
            results[hashlibs(streams)].costs.append(Cost(before, before))
            results[ours(streams)].costs.append(Cost(after, after))
    return results
