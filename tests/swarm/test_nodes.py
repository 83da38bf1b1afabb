"""Nodes that fetch one model together: real servers, real fetches, a Hub that counts what it sends."""

from __future__ import annotations

import os

import pytest

from fetcher.artifact import ORIGIN
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Reset
from tests.lab.waiting import wait_until
from tests.swarm.conftest import TOTAL, Fetched, Nodes

RATE = 6e6
"""Bytes a second of the Hub: a model takes some seconds, in which its chunks go from node to node."""


def share(*fetches: Fetched) -> float:
    """What came from the origin, as a multiple of the model."""
    return sum(each.bytes_from.get(ORIGIN, 0) for each in fetches) / TOTAL


class TestTogether:
    def test_three_nodes_that_start_together_ask_the_origin_once(self, nodes: Nodes) -> None:
        together = [nodes.node() for _ in range(3)]
        nodes.hub.throttle(total=RATE)
        nodes.begin_together(*together)
        ended = [node.end() for node in together]
        assert 1 <= share(*ended) <= 1.05, [each.bytes_from for each in ended]
        assert all(0.2 < share(each) < 0.5 for each in ended), "each brings about its third"
        assert nodes.sent <= 1.05

    def test_a_node_that_dies_is_replaced(self, nodes: Nodes) -> None:
        together = [nodes.node() for _ in range(3)]
        nodes.hub.throttle(total=RATE)
        nodes.begin_together(*together)
        *living, dead = together
        wait_until(lambda: nodes.sent > 0.5, "half of the model is under way")
        dead.die()
        ended = [node.end() for node in living]
        assert share(*ended) <= 1.05
        assert "MirrorBanned" not in ended[0].log + ended[1].log

    def test_a_liar_is_banned_alone_and_no_wrong_byte_is_published(self, nodes: Nodes) -> None:
        liar = nodes.fetched()
        for path in liar.root.rglob("*.safetensors"):
            with path.open("r+b") as file:
                for chunk in range(0, os.path.getsize(path), 64 * 1024):
                    file.seek(chunk)
                    byte = file.read(1)
                    file.seek(chunk)
                    file.write(bytes([byte[0] ^ 1]))
        honest = [nodes.node() for _ in range(2)]
        nodes.hub.throttle(total=RATE)
        for node in honest:
            node.begin()
        for node in honest:
            ended = node.end()
            banned = [line for line in ended.log.splitlines() if "MirrorBanned" in line]
            assert all(liar.where in line for line in banned)
            if ended.bytes_from.get(liar.where):
                assert banned


class TestLate:
    def test_who_comes_late_has_everything_from_its_peers(self, nodes: Nodes) -> None:
        first = nodes.fetched()
        nodes.hub.clear_requests()
        second = nodes.node()
        second.begin()
        late = nodes.node()
        late.begin()
        for each in (second.end(), late.end()):
            assert each.bytes_from.keys() <= {first.where, second.where, late.where, ORIGIN}
            assert share(each) <= 0.05
            assert "of 2 peers have this artifact" in each.log or "of 1 peer have this artifact" in each.log

    def test_a_node_without_a_server_of_its_own_asks_peers_first(self, nodes: Nodes) -> None:
        nodes.fetched()
        leech = nodes.node(served=False)
        leech.begin()
        ended = leech.end()
        assert share(ended) <= 0.05
        assert "no server here passes on what this node has" in ended.log

    def test_one_complete_peer_is_enough_once_the_origin_has_listed_the_files(self, nodes: Nodes) -> None:
        complete = nodes.fetched()
        nodes.hub.faults.add(Fault(Reset(), path="/resolve/"))
        nodes.hub.faults.add(Fault(Reset(), origin="cdn"))
        late = nodes.node()
        late.begin()
        assert late.end().bytes_from == {complete.where: TOTAL}


class TestNobodyLeft:
    def test_when_all_peers_are_gone_the_origin_brings_the_rest(self, nodes: Nodes) -> None:
        nodes.hub.throttle(total=RATE)
        together = [nodes.node() for _ in range(2)]
        nodes.begin_together(*together)
        living, dead = together
        wait_until(lambda: nodes.sent > 0.3, "something has come")
        dead.die()
        assert share(living.end()) > 0.5

    @pytest.mark.parametrize("mirror", ["http://127.0.0.1:9", "dns://nowhere.invalid:8650"])
    def test_peers_that_are_not_there_cost_a_moment(self, nodes: Nodes, mirror: str) -> None:
        nodes.more = ["--mirror", mirror]
        alone = nodes.node(served=False)
        alone.begin()
        ended = alone.end()
        assert share(ended) == 1
        assert "0 of " in ended.log
