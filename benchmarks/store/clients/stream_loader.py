"""Stream all tensors of a checkpoint at an address by `loader.open`, each file compared with the checksum of the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import loader
from benchmarks.store.clients.timed import timed


def sizes() -> Iterator[int]:
    weights = loader.open(sys.argv[1])
    for info, _ in weights.stream():
        yield info.size


timed(sizes)
