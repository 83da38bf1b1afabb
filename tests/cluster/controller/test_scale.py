"""1,000 nodes x 200 models, decided in pure code: how much memory, how long, how many bytes are written.

Ratios and sizes are checked, times are only printed: they depend on the machine.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from dataclasses import replace

from cluster.controller.reading import CONTROLLER, MANAGED_BY, read_cache
from cluster.controller.world import World
from cluster.controller.writing import Budget
from cluster.resources import encoded
from tests.cluster.controller.building import model, planned, pool, world

NODES, MODELS = 1000, 200
MiB = 1024 * 1024


def document(node: str, spec: object, phase: str) -> bytes:
    """A NodeCache as the API server sends it, with an agent's status."""
    wanted = encoded(spec)
    artifacts = {key: {"phase": phase} for key in wanted.get("artifacts", {})}
    metadata = {"name": node, "uid": f"uid-{node}", "resourceVersion": "1", "labels": {MANAGED_BY: CONTROLLER}}
    return json.dumps({"metadata": metadata, "spec": wanted, "status": {"artifacts": artifacts}}).encode()


def test_a_large_cluster_is_decided_within_the_memory_of_the_controller(capfd) -> None:  # type: ignore[no-untyped-def]
    models = [model(f"m{number:03}", uri=f"hf://org/m{number:03}") for number in range(MODELS)]
    given = world(models, [pool(max_fetching=8)], nodes=NODES)
    first = planned(given)
    assert sum(len(spec.artifacts) for spec in first.specs.values()) == NODES * MODELS
    sent = {node: document(node, spec, "Queued") for node, spec in first.specs.items()}
    size = sum(len(each) for each in sent.values())

    tracemalloc.start()
    caches = {node: read_cache(json.loads(each)) for node, each in sent.items()}
    read, _ = tracemalloc.get_traced_memory()
    seen: World = replace(given, caches=caches)
    began = time.monotonic()
    again = planned(seen)
    took = time.monotonic() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    began = time.monotonic()
    planned(seen)
    untraced = time.monotonic() - began
    with capfd.disabled():
        print(
            f"\n{NODES} nodes x {MODELS} models: NodeCaches {size / 1e6:.0f} MB of JSON, {read / MiB:.0f} MiB in memory, "
            f"{peak / MiB:.0f} MiB at most while deciding, which takes {untraced:.1f} s ({took:.1f} s traced)"
        )
    assert again.specs == first.specs
    assert read < 128 * MiB
    assert peak < 320 * MiB


def test_a_budget_bounds_the_bytes_of_any_long_time() -> None:
    now, written = 0.0, 0

    def clock() -> float:
        return now

    budget = Budget(clock)
    for _ in range(100_000):
        if budget.allows():
            budget.spend(50_000)
            written += 50_000
        now += 0.01
    assert written <= 1_000_000 * now + 32_000_000 + 50_000
    assert written >= 1_000_000 * now
