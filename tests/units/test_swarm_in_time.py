"""Swarms in simulated time: what nodes take against the bound, and what goes wrong. `benchmarks.swarm` prints a table."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from fetcher.planning.ownership import Layout
from fetcher.planning.peer import SILENCE
from tests.lab.swarming import GBIT, Member, Outcome, Simulation, bound

LAYOUT = Layout("ab" * 32, (16,) * 8)
NEVER = float("inf")


def simulated(nodes: Sequence[Member], rate: float = GBIT, layout: Layout = LAYOUT) -> tuple[Outcome, float]:
    least = bound(layout, nodes, rate)
    return Simulation(layout, nodes, rate=rate).run(until=50 * least), least


def equal(count: int) -> list[Member]:
    return [Member(f"n{number}") for number in range(count)]


class TestSimulated:
    """Small swarms."""

    @pytest.mark.parametrize("count", [1, 2, 8])
    def test_equal_nodes_finish_near_the_bound_and_ask_the_origin_once(self, count: int) -> None:
        outcome, least = simulated(equal(count), layout=Layout("ab" * 32, (32,) * 8))
        assert len(outcome.ended) == count
        assert max(outcome.ended.values()) < 1.2 * least
        assert outcome.origin <= 1.01 * 256

    def test_who_comes_late_finds_everything_at_its_peers(self) -> None:
        outcome, least = simulated([*equal(7), Member("late", joins=60.0)])
        assert outcome.origin == LAYOUT.chunks
        assert outcome.finished["late"] < 1.2 * least

    def test_the_shares_of_the_dead_are_taken_over(self) -> None:
        nodes = [*equal(6), Member("d0", dies=5.0), Member("d1", dies=8.0)]
        outcome, least = simulated(nodes)
        assert len(outcome.ended) == 6
        assert outcome.origin <= LAYOUT.chunks * (1 + 2 / 8)
        assert max(outcome.ended.values()) < 2 * least + SILENCE

    def test_two_halves_that_lose_each_other_both_finish(self) -> None:
        nodes = [Member(f"n{number}", cut=5.0 if number % 2 else NEVER) for number in range(8)]
        outcome, _ = simulated(nodes)
        assert len(outcome.ended) == 8
        assert outcome.origin <= 2 * LAYOUT.chunks

    def test_when_all_peers_die_the_origin_brings_everything(self) -> None:
        outcome, least = simulated([Member("n0"), *(Member(f"d{number}", dies=3.0) for number in range(7))])
        assert outcome.ended["n0"] < least + SILENCE + 10

    def test_a_liar_is_banned_alone_and_costs_the_origin_nothing(self) -> None:
        honest, _ = simulated(equal(7))
        outcome, _ = simulated([*equal(7), Member("liar", lies=True)])
        assert outcome.banned == {"liar"}
        assert outcome.wrong > 0
        assert outcome.origin <= 1.05 * LAYOUT.chunks
        assert max(outcome.ended.values()) < 1.1 * max(honest.ended.values()) + 10

    def test_a_slow_peer_delays_nobody_for_long(self) -> None:
        honest, _ = simulated(equal(8))
        outcome, _ = simulated([*equal(7), Member("slow", up=GBIT / 20)])
        assert max(outcome.ended.values()) < 1.1 * max(honest.ended.values()) + 15
        assert outcome.origin <= LAYOUT.chunks * (1 + 1.5 / 8)

    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize(
        ("later", "gives"), [(1.0, NEVER), (8.0, NEVER), (60.0, NEVER), (1.0, 3.0), (1.0, 9.0), (1.0, 20.0), (8.0, 9.0)]
    )
    def test_peers_that_have_everything_and_want_to_be_asked_later_keep_nobody_from_the_origin(
        self, count: int, later: float, gives: float
    ) -> None:
        """What two of them say, or one that brought a part of a verified file, is surely there, but only if they bring it."""
        layout = Layout("ab" * 32, (32,) * 8)
        honest, _ = simulated(equal(7), layout=layout)
        busy = [Member(f"busy{number}", busy=later, gives=gives) for number in range(count)]
        outcome, _ = simulated([*equal(7), *busy], layout=layout)
        assert len(outcome.ended) == 7
        assert max(outcome.ended.values()) < 1.1 * max(honest.ended.values()) + 10
        assert outcome.origin <= 1.05 * layout.chunks

    @pytest.mark.parametrize(("honest", "count"), [(1, 1), (1, 2), (2, 2), (3, 3)])
    @pytest.mark.parametrize("gives", [NEVER, 9.0, 29.0])
    def test_nor_do_they_where_they_are_as_many_as_the_others(self, honest: int, count: int, gives: float) -> None:
        """How long most peers make a node wait is no measure then."""
        layout = Layout("ab" * 32, (32,) * 8)
        busy = [Member(f"busy{number}", busy=1.0, gives=gives) for number in range(count)]
        outcome, least = simulated([*equal(honest), *busy], layout=layout)
        assert len(outcome.ended) == honest
        assert max(outcome.ended.values()) < 2.5 * least
        assert outcome.origin <= 1.05 * layout.chunks

    def test_peers_that_refuse_some_requests_are_asked_instead_of_the_origin(self) -> None:
        """A peer that has everything sends to 7 at once: each finds it busy most of the time."""
        layout = Layout("ab" * 32, (32,) * 8)
        outcome, _ = simulated([*equal(7), Member("whole", whole=True)], layout=layout)
        assert outcome.origin <= 0.4 * layout.chunks

    def test_without_an_origin_one_complete_peer_is_enough(self) -> None:
        outcome = Simulation(LAYOUT, [*equal(4), Member("whole", whole=True)], rate=0.0).run(until=300)
        assert len(outcome.ended) == 5
        assert outcome.origin == 0


NODES = int(os.environ.get("WEIGHTLIFT_SWARM_NODES", "8"))
"""The limits are those for 32 nodes, which take 3 minutes. Fewer have less to trade, and the same limits."""
THOUSAND = Layout("ab" * 32, (64,) * 16)
LIMITS = [
    pytest.param(equal(NODES), GBIT, id="equal"),
    pytest.param(equal(NODES), NODES * GBIT, id="an origin as fast as all of them"),
    pytest.param(equal(NODES), GBIT / 4, id="an origin of a quarter of a node's link"),
    pytest.param([Member(f"n{i}", joins=300 * i / (NODES - 1)) for i in range(NODES)], GBIT, id="starts over 5 minutes"),
    pytest.param([*equal(NODES - 1), Member("late", joins=70.0)], GBIT, id="one joins midway"),
    pytest.param(
        [Member(f"n{i}", up=GBIT / (4 if i % 2 else 1), down=GBIT / (4 if i % 2 else 1)) for i in range(NODES)],
        GBIT,
        id="half with a quarter of the link",
    ),
]


class TestLimits:
    """1,024 chunks: the last node within 1.10 of the bound, and the origin within 1.05 of the model."""

    @pytest.mark.parametrize(("members", "rate"), LIMITS)
    def test_nodes_keep_to_the_limits(self, members: Sequence[Member], rate: float) -> None:
        outcome, least = simulated(members, rate=rate, layout=THOUSAND)
        assert len(outcome.ended) == len(members)
        assert max(outcome.ended.values()) <= 1.10 * (least + max(each.joins for each in members))
        assert outcome.origin <= 1.05 * THOUSAND.chunks

    def test_32_equal_nodes_keep_to_the_limits(self) -> None:
        self.test_nodes_keep_to_the_limits(equal(32), GBIT)

    def test_a_slow_peer_costs_a_tenth_and_ten_seconds_at_most(self) -> None:
        outcome, _ = simulated([*equal(NODES - 1), Member("slow", up=GBIT / 20)], layout=THOUSAND)
        honest, _ = simulated(equal(NODES), layout=THOUSAND)
        assert max(outcome.ended.values()) <= 1.10 * max(honest.ended.values()) + 10
