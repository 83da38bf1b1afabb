"""The number of connections fits the link, in simulated time: 95 % of its capacity with no more connections than needed."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE
from fetcher.engine.concurrency import Concurrency
from tests.engine.link import Link, Simulation

GBIT = 125e6
"""Bytes a second."""
GB = 10**9


def efficiency(simulation: Simulation) -> float:
    """Return the best possible time, on a link full from the first answer to the last byte, divided by the actual time."""
    link = simulation.link
    best = link.latency + sum(simulation.sizes) / min(link.rate, link.cap * simulation.most)
    return best / simulation.run()


@pytest.mark.parametrize(
    ("link", "sizes"),
    [
        (Link(2 * GBIT, 2 * GBIT / 3, 0.02), [GB] * 16),
        (Link(10 * GBIT, GBIT / 2, 0.002), [2 * GB] * 16),
        (Link(10 * GBIT, 10 * GBIT, 0.0005), [2 * GB] * 16),
        (Link(GBIT / 10, GBIT / 40, 0.2), [GB // 4] * 4),
        (Link(5 * GBIT, GBIT / 4, 0.08), [20 * GB]),
        (Link(25 * GBIT, GBIT, 0.01), [5 * GB] * 20),
        (Link(GBIT, GBIT / 8, 0.05), [40 * 10**6] * 200),
    ],
    ids=[
        "a third for a single flow",
        "20 connections needed",
        "one connection fills it",
        "slow and far away",
        "one large file",
        "25 connections needed",
        "files of one range",
    ],
)
def test_a_transfer_reaches_95_percent_of_the_link_capacity(link: Link, sizes: list[int]) -> None:
    assert efficiency(Simulation(link, sizes)) >= 0.95


def test_many_small_files_get_many_connections() -> None:
    """Round trips dominate, so many connections are needed. Growing to that number takes a moment."""
    simulation = Simulation(Link(10 * GBIT, 10 * GBIT, 0.1), [100_000] * 10_000)
    assert simulation.run() < 0.1 * 10_000 / 64 * 1.4


def test_a_link_that_one_connection_fills_gets_few_connections() -> None:
    simulation = Simulation(Link(2 * GBIT, 2 * GBIT, 0.001), [GB] * 16)
    simulation.run()
    assert statistics.median(simulation.level_in(0.2, 0.9)) <= 12


def test_connections_grow_when_the_link_gets_faster() -> None:
    link = Link(GBIT, GBIT / 4, 0.02, rate_later=(30.0, 8 * GBIT))
    simulation = Simulation(link, [5 * GB] * 8)
    simulation.run()
    assert statistics.median(simulation.level_in(0.7, 0.95)) >= 28


def test_a_server_that_refuses_gets_fewer_requests() -> None:
    simulation = Simulation(Link(10 * GBIT, GBIT / 4, 0.02, allowed=8), [5 * GB] * 4)
    simulation.run()
    assert statistics.median(simulation.level_in(0.1, 1.0)) <= 8
    assert simulation.refusals < 40


def test_slower_answers_do_not_add_connections() -> None:
    simulation = Simulation(Link(2 * GBIT, GBIT, 0.02, queue=True), [GB] * 16)
    simulation.run()
    assert statistics.median(simulation.level_in(0.2, 0.9)) <= 12


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    rate=st.floats(GBIT / 4, 20 * GBIT),
    flows=st.integers(1, 48),
    latency=st.floats(0.0005, 0.15),
    files=st.sampled_from([1, 3, 16, 40]),
)
def test_any_link_is_used_well(rate: float, flows: int, latency: float, files: int) -> None:
    """A minute's worth of data. A chunk is not shared: the tail is visible if a chunk lasts longer than two seconds."""
    assume(rate / flows >= CHUNK_SIZE / 2)
    assert efficiency(Simulation(Link(rate, rate / flows, latency), [int(60 * rate / files)] * files)) >= 0.95


class TestSteps:
    def controlled(self, most: int = 64) -> tuple[Concurrency, list[float]]:
        clock = [0.0]
        return Concurrency(most, clock=lambda: clock[0]), clock

    def test_the_number_stays_between_one_and_the_limit(self) -> None:
        control, clock = self.controlled(most=2)
        for _ in range(100):
            clock[0] += 2.0
            control.received(10**9)
            assert control.connections <= 2
        for _ in range(100):
            clock[0] += 2.0
            control.refused()
            control.failed()
        assert control.connections == 1

    def test_simultaneous_refusals_count_as_one(self) -> None:
        control, clock = self.controlled()
        clock[0] = 10.0
        for _ in range(8):
            control.refused()
        assert control.connections == 5

    def test_broken_connections_reduce_the_number(self) -> None:
        control, clock = self.controlled()
        clock[0] = 10.0
        control.failed()
        assert control.connections == 6

    def test_a_range_is_two_seconds_of_work_and_half_a_share_near_the_end(self) -> None:
        control, clock = self.controlled(most=8)
        assert control.range_length(10**12, shortest=16, longest=10**9) == 64
        clock[0] = 0.5
        control.received(8 * 50)
        clock[0] = 1.0
        control.received(0)
        rate = 8 * 50 / 0.75  # the bytes after the first quarter of a second, divided by the time since then
        assert control.range_length(10**12, shortest=16, longest=10**9) == int(2 * rate / 8)
        assert control.range_length(1600, shortest=16, longest=10**9) == 100
        assert control.range_length(10, shortest=16, longest=10**9) == 16
        assert control.range_length(10**12, shortest=16, longest=64) == 64

    def test_a_range_on_a_long_link_takes_forty_round_trips(self) -> None:
        control, clock = self.controlled(most=8)
        control.answered(0.2)
        clock[0] = 1.0
        control.received(8000)
        assert control.range_length(10**12, shortest=16, longest=10**9) == int(8000 / 0.75 / 8 * 8)
