"""Nodes that fetch one model together: real servers, real fetches, a Hub that counts what it sends, many chunks in a file.

`tests/engine/test_swarm.py` has everything that can go wrong, in one process.
"""

from __future__ import annotations

from fetcher.artifact import ORIGIN
from tests.lab.small_chunks import PATIENCE
from tests.lab.waiting import wait_until
from tests.swarm.conftest import TOTAL, Fetched, Nodes

RATE = 6e6
"""Bytes a second of the Hub: a model takes some seconds, in which its chunks go from node to node."""


def share(*fetches: Fetched) -> float:
    """What came from the origin, as a multiple of the model."""
    return sum(each.bytes_from.get(ORIGIN, 0) for each in fetches) / TOTAL


def test_three_nodes_that_start_together_ask_the_origin_once(nodes: Nodes) -> None:
    nodes.environ[PATIENCE] = "1000"
    together = [nodes.node() for _ in range(3)]
    nodes.hub.throttle(total=RATE)
    nodes.begin_together(*together)
    ended = [node.end() for node in together]
    assert 1 <= share(*ended) <= 1.5, "without peers it is 3; `python -m benchmarks peers` measures how near it comes to 1"
    assert all(share(each) < 0.75 for each in ended), "each brings about its third"


def test_two_nodes_go_on_when_the_third_is_killed(nodes: Nodes) -> None:
    *living, dying = [nodes.node() for _ in range(3)]
    nodes.hub.throttle(total=RATE)
    nodes.begin_together(*living, dying)
    wait_until(lambda: nodes.sent > 0.3, "the Hub has begun to send", timeout=60)
    dying.die()
    ended = [node.end() for node in living]
    assert share(*ended) <= 1.75, "two nodes without peers would take 2"
    assert not any("MirrorBanned" in each.log for each in ended)
