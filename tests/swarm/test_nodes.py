"""Nodes that fetch one model together: real servers, real fetches, a Hub that counts what it sends."""

from __future__ import annotations

from tests.swarm.conftest import TOTAL, Nodes


def test_three_nodes_that_start_together_ask_the_origin_once(nodes: Nodes) -> None:
    together = [nodes.node() for _ in range(3)]
    nodes.hub.throttle(total=4e6)
    nodes.begin_together(*together)
    ended = [node.end() for node in together]
    origin = sum(each.bytes_from.get("origin", 0) for each in ended)
    assert origin <= 1.05 * TOTAL, [each.bytes_from for each in ended]
