"""Stream all tensors of a checkpoint at an address by `loader.open`, each file compared with the checksum of the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module

import loader
from benchmarks.store.clients.timed import timed

for late in ("loader.remote.shards", "fetcher.streaming.opened", "fetcher.sources.s3", "fetcher.transport.client"):
    import_module(late)  # an import belongs to no load


def sizes() -> Iterator[int]:
    weights = loader.open(sys.argv[1])
    for info, _ in weights.stream():
        yield info.size


timed(sizes)
