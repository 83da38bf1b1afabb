"""The same roll-out, with every write done by a real API server: what its objects really weigh, and what etcd grows by.

By default 5 nodes x 10 models; WEIGHTLIFT_TEST_ROLLOUT_STORED=100x200 for more, and WEIGHTLIFT_TEST_ETCD=http://HOST:PORT for
what etcd itself says. The clock, the watches and the fetches are simulated, so no node waits. No controller may run
on that cluster: it would remove NodeCaches whose pool it does not know.
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from cluster.client import Api, ApiError, Endpoint, Missing
from cluster.client.endpoints import NAMESPACES
from cluster.resources import CACHE_POOL, MODEL_CACHE
from tests.cluster.controller.playing import Stage, document, stage
from tests.cluster.controller.rolling import Document, Rollout, Server

SIZE = os.environ.get("WEIGHTLIFT_TEST_ROLLOUT_STORED", "5x10")
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
        if subresource:
            self.by_node[name] = self.by_node.get(name, 0) + 1
        merged = await self._api.merge(endpoint, name, namespace, patch, subresource=subresource)
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
async def test_a_roll_out_on_a_real_api_server(cluster: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    nodes, models = map(int, SIZE.split("x"))
    mark = f"rollout-{uuid4().hex[:6]}"
    server = Stored(cluster.api)
    names = [f"{mark}-n{number}" for number in range(nodes)]
    rollout = Rollout(
        nodes=names,
        models=models,
        fetch=10.0,
        max_fetching=max(2, nodes // 16),
        server=server,
        tenant=cluster.tenant,
        mark=mark,
    )
    await _make_namespace(cluster.api, "weightlift")
    before = etcd()
    try:
        outcome = await rollout.run()
    finally:
        await _remove(cluster.api, server)
    after = etcd()
    with capfd.disabled():
        print(f"\n{SIZE} on a real API server, {outcome.seconds:.0f} simulated s")
        for kind, each in sorted(server.counted.items()):
            print(f"  {kind}: {each.writes} writes, bodies {each.sent / 1e6:.2f} MB, objects {each.kept / 1e6:.2f} MB")
        total = sum(each.kept for each in server.counted.values())
        print(f"  all: objects {total / 1e6:.2f} MB; etcd grew by {(after - before) / 1e6:.2f} MB")
    sent = sum(each.sent for each in server.counted.values())
    assert max(server.by_node.values()) <= 2 * models
    assert (
        sent <= 8000 * nodes * models
    )  # a GiB for 1,000 x 200 is 5,369 for each pair; what each object has once weighs more here


def etcd() -> int:
    """Bytes that etcd was given to keep so far; 0 if nobody says where it is. Its file grows in steps."""
    if not ETCD:
        return 0
    with urllib.request.urlopen(f"{ETCD}/metrics", timeout=30) as answer:
        found = re.search(r"^etcd_debugging_mvcc_total_put_size_in_bytes (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


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
