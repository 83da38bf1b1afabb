"""The same roll-out, with every write done by a real API server: what its objects really weigh, and what etcd grows by.

By default 5 nodes x 10 models; WEIGHTLIFT_TEST_ROLLOUT_STORED=100x200 for more, and WEIGHTLIFT_TEST_ETCD=http://HOST:PORT for
what etcd itself says. WEIGHTLIFT_TEST_ROLLOUT_PACE=1000 gives them the intervals of a cluster of so many nodes.
The clock, the watches and the fetches are simulated, so no node waits. No controller may run on that cluster: it would remove
NodeCaches whose pool it does not know.
"""

from __future__ import annotations

import json
import os
import re
import resource
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from cluster.client import Api, ApiError, Endpoint, Missing
from cluster.client.endpoints import NAMESPACES
from cluster.controller import specs
from cluster.resources import CACHE_POOL, MODEL_CACHE
from tests.cluster.controller.playing import Stage, document, stage
from tests.cluster.controller.rolling import Document, Rollout, Server

SIZE = os.environ.get("WEIGHTLIFT_TEST_ROLLOUT_STORED", "5x10")
PACE = int(os.environ.get("WEIGHTLIFT_TEST_ROLLOUT_PACE", "0"))
ETCD = os.environ.get("WEIGHTLIFT_TEST_ETCD", "")
"""Read at import, because the environment of a test is cleaned."""
_SPECS: Mapping[str, Document] = {
    MODEL_CACHE.name: {"source": {"uri": "hf://organisation/model"}, "placement": {"pools": [{"name": "p"}]}},
    CACHE_POOL.name: {"root": "/models"},
}
"""What a person would have written before the controller tells its status."""


class Stored(Server):
    """Asks a real API server, and counts its objects as it returns them. What it made is in `made`."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        self.made: list[tuple[Endpoint, Document]] = []

    async def create(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Document:
        made = await self._api.create(endpoint, body)
        self.made.append((endpoint, made))
        return self._take(endpoint, endpoint.kind, body, made)

    async def apply(
        self, endpoint: Endpoint, body: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Document:
        metadata = body["metadata"]
        place = (endpoint.kind, metadata.get("namespace", ""), metadata["name"])
        if place not in self.objects and endpoint.kind in _SPECS:
            person = document(endpoint, metadata["name"], metadata.get("namespace", ""))
            self.made.append((endpoint, await self._api.create(endpoint, {**person, "spec": _SPECS[endpoint.kind]})))
        applied = await self._api.apply(endpoint, body, subresource=subresource, force=force)
        if place not in self.objects and endpoint.kind not in _SPECS:
            self.made.append((endpoint, applied))
        return self._take(endpoint, f"{endpoint.kind}/{subresource}".rstrip("/"), body, applied)

    async def merge(
        self, endpoint: Endpoint, name: str, namespace: str, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> Document:
        merged = await self._api.merge(endpoint, name, namespace, patch, subresource=subresource)
        if subresource:  # not what a write of the controller's came before: that is tried again
            self.by_node[name] = self.by_node.get(name, 0) + 1
        return self._take(endpoint, f"{endpoint.kind}/{subresource}".rstrip("/"), patch, merged)

    async def delete(self, endpoint: Endpoint, name: str, namespace: str = "", *, uid: str) -> None:
        await self._api.delete(endpoint, name, namespace, uid=uid)
        await super().delete(endpoint, name, namespace, uid=uid)

    def _take(self, endpoint: Endpoint, kind: str, body: Mapping[str, Any], now: Document) -> Document:
        metadata = now["metadata"]
        return self.count((endpoint.kind, metadata.get("namespace", ""), metadata["name"]), kind, body, now)


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.mark.timeout(7200)
async def test_a_roll_out_on_a_real_api_server(
    cluster: Stage, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes, models = map(int, SIZE.split("x"))
    interval = specs.status_interval(PACE or nodes)
    monkeypatch.setattr(specs, "status_interval", lambda _: interval)
    mark = f"rollout-{uuid4().hex[:6]}"
    server = Stored(cluster.api)
    names = [f"{mark}-n{number}" for number in range(nodes)]
    rollout = Rollout(
        nodes=names,
        models=models,
        fetch=10.0,
        max_fetching=max(2, nodes // 16),
        pace=PACE or None,
        server=server,
        tenant=cluster.tenant,
        mark=mark,
    )
    await _make_namespace(cluster.api, "weightlift")
    before = etcd()
    try:
        outcome = await rollout.run()
        after = etcd()
        compacted, defragmented = compact() if after is not None else (None, None)
    finally:
        await _remove(cluster.api, server)
    sent, worst = sum(each.sent for each in server.counted.values()), outcome.most_in_a_minute / 1e6
    with capfd.disabled():
        print(f"\n{SIZE} on a real API server, {outcome.seconds:.0f} simulated s")
        for kind, each in sorted(server.counted.items()):
            print(f"  {kind}: {each.writes} writes, bodies {each.sent / 1e6:.2f} MB, objects {each.kept / 1e6:.2f} MB")
        total = sum(each.kept for each in server.counted.values())
        print(f"  all: bodies {sent / 1e6:.2f} MB, objects {total / 1e6:.2f} MB, worst minute {worst:.2f} MB/s")
        print(
            f"  controller: {outcome.passes} passes, {outcome.processor:.0f} s of a processor, at most {outcome.slowest:.1f}; "
            f"process with all agents: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
        )
        if before and after and compacted and defragmented:
            print(
                f"  etcd: {after.puts - before.puts} puts of {(after.put - before.put) / 1e6:.2f} MB; its file had "
                f"{before.file / 1e6:.2f} MB, then {after.file / 1e6:.2f}, of which {after.used / 1e6:.2f} were used, after a "
                f"compaction {compacted.used / 1e6:.2f}, and {defragmented.file / 1e6:.2f} when it was defragmented"
            )
    assert max(server.by_node.values()) <= 2 * models
    assert (
        sent <= 8000 * nodes * models
    )  # a GiB for 1,000 x 200 is 5,369 for each pair; what each object has once weighs more here


@dataclass(frozen=True, slots=True)
class Etcd:
    """What etcd was given so far, its file, and what of that is used, in bytes."""

    puts: int
    put: int
    file: int
    used: int


def etcd() -> Etcd | None:
    """What etcd says of itself; None if nobody says where it is."""
    if not ETCD:
        return None
    with urllib.request.urlopen(f"{ETCD}/metrics", timeout=30) as answer:
        found = dict(re.findall(r"^(etcd_\w+) (\S+)$", answer.read().decode(), re.MULTILINE))
    names = ("mvcc_put_total", "debugging_mvcc_total_put_size_in_bytes", "mvcc_db_total_size_in_bytes")
    return Etcd(*(int(float(found[f"etcd_{each}"])) for each in (*names, "mvcc_db_total_size_in_use_in_bytes")))


def compact() -> tuple[Etcd, Etcd]:
    """Let etcd forget what objects were before, and then what its file had for that. Return what it says after each."""
    revision = _asked("kv/range", {"key": "AA=="})["header"]["revision"]
    _asked("kv/compaction", {"revision": revision, "physical": True})
    compacted = etcd()
    _asked("maintenance/defragment", {})
    defragmented = etcd()
    assert compacted is not None
    assert defragmented is not None
    return compacted, defragmented


def _asked(what: str, body: Document) -> Document:
    with urllib.request.urlopen(f"{ETCD}/v3/{what}", json.dumps(body).encode(), timeout=300) as answer:
        found: Document = json.load(answer)
    return found


async def _make_namespace(api: Api, name: str) -> None:
    try:
        await api.get(NAMESPACES, name)
    except Missing:
        await api.create(NAMESPACES, document(NAMESPACES, name))


async def _remove(api: Api, server: Stored) -> None:
    for endpoint, made in reversed(server.made):
        metadata = made["metadata"]
        with suppress(ApiError):
            await api.delete(endpoint, metadata["name"], metadata.get("namespace", ""), uid=metadata["uid"])
