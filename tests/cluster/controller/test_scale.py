"""1,000 nodes x 200 models, decided in pure code: how much memory, how long, how many bytes are written.

Ratios and sizes are checked, times are only printed: they depend on the machine.
"""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest

from cluster.client import Api, Endpoint, Watched
from cluster.client.api import Page
from cluster.client.bounds import BOUNDS
from cluster.client.endpoints import CLAIMS
from cluster.controller.budget import Budget
from cluster.controller.reading import CONTROLLER, MANAGED_BY, read_cache, read_target
from cluster.controller.world import World
from cluster.kserve.reading import read_claim
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


CLAIM = {
    "metadata": {
        "namespace": "team-000000",
        "uid": "00000000-0000-0000-0000-000000000000",
        "resourceVersion": "123456789",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": "orders-000000"},
        "annotations": {
            "pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes",
            "volume.beta.kubernetes.io/storage-provisioner": "csi.storage.example.com",
            "volume.kubernetes.io/selected-node": "node-000000",
            "volume.kubernetes.io/storage-provisioner": "csi.storage.example.com",
        },
        "finalizers": ["kubernetes.io/pvc-protection"],
        "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:a": "x" * 1400}}],
    },
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "100Gi"}},
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
    },
    "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "100Gi"}},
}
"""A claim of somebody else, as an API server sends it: 2.6 kB, of which half says who wrote which field."""
CLAIMED = int(os.environ.get("WEIGHTLIFT_TEST_CLAIMS", "5000"))


class Claims:
    """Lists `CLAIMED` claims page by page, each parsed from its own text."""

    async def pages(self, endpoint: Endpoint, **_: str) -> AsyncGenerator[Page]:
        for first in range(0, CLAIMED, BOUNDS.page):
            yield Page([self._claim(number) for number in range(first, first + BOUNDS.page)], "1")

    def _claim(self, number: int) -> dict[str, Any]:
        claim: dict[str, Any] = json.loads(json.dumps(CLAIM))
        uid, name = f"{number:08x}-0000-0000-0000-000000000000", f"data-orders-{number}-0"
        claim["metadata"] |= {"name": name, "namespace": f"team-{number // 50}", "uid": uid}
        claim["spec"]["volumeName"] = f"pvc-{uid}"
        return claim


@pytest.mark.parametrize("read", [read_target, read_claim], ids=["the controller", "KServe's manager"])
async def test_all_claims_of_a_cluster_are_kept_in_a_pruned_form(read: Any, capfd: pytest.CaptureFixture[str]) -> None:
    watched = Watched(cast(Api, Claims()), CLAIMS, read, on_change=lambda: None, on_problem=lambda _: None)
    tracemalloc.start()
    await watched._list()  # noqa: SLF001 - one list, and no watch that never ends
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with capfd.disabled():
        print(
            f"\n{CLAIMED} claims of {len(json.dumps(CLAIM)) / 1e3:.1f} kB: {kept / MiB:.1f} MiB kept, "
            f"{kept / CLAIMED:.0f} bytes each, {peak / MiB:.1f} MiB at most while listing"
        )
    assert len(watched.objects) == CLAIMED
    assert kept < 1024 * CLAIMED
    assert peak < 2 * 1024 * CLAIMED + 8 * MiB


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
