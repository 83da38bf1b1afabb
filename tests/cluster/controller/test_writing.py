"""When the specification of a NodeCache is written: what is wanted at once, turns alone seldom in a large cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from cluster.client import Api
from cluster.controller.planning import Plan
from cluster.controller.reading import read_cache
from cluster.controller.writing import Writer
from cluster.resources import NODE_CACHE, Entry, NodeCacheSpec, encoded
from tests.cluster.controller.building import CONTENT, world
from tests.cluster.controller.rolling import Server

ONE, OTHER = "1" * 16, "2" * 16
INTERVAL = 100
BEFORE = NodeCacheSpec("p", status_interval=INTERVAL, artifacts={ONE: Entry("m" * 16, turn=True), OTHER: Entry("m" * 16)})
MORE_TURNS = replace(BEFORE, artifacts={each: Entry("m" * 16, turn=True) for each in (ONE, OTHER)})
MORE_WANTED = replace(BEFORE, artifacts={**BEFORE.artifacts, "3" * 16: Entry("m" * 16)})
FETCHES = {"phase": "Fetching"}
HAS_IT = {"phase": "Ready", "content": CONTENT}


@pytest.mark.parametrize(
    ("reports", "wanted", "seconds"),
    [
        pytest.param(HAS_IT, MORE_WANTED, 0, id="another artifact"),
        pytest.param(HAS_IT, MORE_TURNS, INTERVAL, id="a turn, for a node that has used its turns"),
        pytest.param(FETCHES, MORE_TURNS, 3 * INTERVAL, id="a turn, for a node that still fetches"),
        pytest.param(None, MORE_TURNS, 3 * INTERVAL, id="a turn, for a node that has not begun"),
        pytest.param(FETCHES, replace(MORE_TURNS, status_interval=None), 0, id="a turn, in a small cluster"),
    ],
)
async def test_how_long_a_change_of_a_node_waits(reports: dict[str, Any] | None, wanted: NodeCacheSpec, seconds: int) -> None:
    now, server = 0.0, Server()
    writer = Writer(
        cast(Api, server), status_interval=5.0, on_note=lambda *_: None, on_problem=lambda _: None, clock=lambda: now
    )
    before = replace(BEFORE, status_interval=wanted.status_interval)
    await writer.write(plan(before), world([], nodes=["n"], caches={}))
    document = {**server.objects[NODE_CACHE.name, "", "n"], "status": {"artifacts": {ONE: reports} if reports else {}}}
    seen = world([], nodes=["n"], caches={"n": read_cache(document)})

    for moment in range(0, 4 * INTERVAL, INTERVAL // 4):
        now = float(moment)
        await writer.write(plan(wanted), seen)
        if server.objects[NODE_CACHE.name, "", "n"]["spec"] == encoded(wanted):
            break

    assert now == seconds


def plan(spec: NodeCacheSpec) -> Plan:
    return Plan({"n": spec}, (), (), {}, {}, {}, frozenset())
