"""SHA-256 of several streams at once, against hashlib: played by `benchmarks.lanes` where the extension is built.

`lanes.compare(streams, rounds=...)` hashes the same bytes of so many streams on one pinned processor, in slices that alternate,
and gives a pair of seconds for each round: hashlib's, then ours.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from benchmarks.measuring import Cost
from benchmarks.running import Measured

SCENARIO = "sha256"
COUNTS = (1, 2, 4, 8, 16)


def ours(streams: int) -> str:
    return f"lanes, {streams} streams"


def hashlibs(streams: int) -> str:
    return f"hashlib, {streams} streams"


def measured(rounds: int) -> dict[str, Measured]:
    """Like a scenario of fetches: a cost for each round."""
    names = [name(streams) for streams in COUNTS for name in (hashlibs, ours)]
    if find_spec("benchmarks.lanes") is None:
        return {name: Measured(failure="not built") for name in names}
    lanes = import_module("benchmarks.lanes")
    results = {name: Measured() for name in names}
    for streams in COUNTS:
        for before, after in lanes.compare(streams, rounds=rounds):
            results[hashlibs(streams)].costs.append(Cost(before, before))
            results[ours(streams)].costs.append(Cost(after, after))
    return results
