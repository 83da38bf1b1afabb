"""The rate limit is exact, and a connection far slower than its siblings is found."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.engine.pace import LEAST, ProgressWindow, RateLimit, SlowConnectionDetector
from fetcher.engine.pull import Mark, Pull
from fetcher.engine.schedule import Assignment

BURST = 0.25
"""Seconds of data that can arrive in a burst after a pause."""


class Time:
    """A clock that only advances by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


class TestRateLimit:
    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5_000)), min_size=1, max_size=20))
    def test_the_rate_is_exactly_the_limit(self, moves: list[tuple[float, int]]) -> None:
        time, rate = Time(), 1000.0
        began, idle, total = time.now, 0.0, 0

        async def pull() -> None:
            nonlocal idle, total
            limit = RateLimit(rate, clock=time, sleep=time.sleep)
            for pause, count in moves:
                time.now += pause
                idle += pause
                await limit.spend(count)
                total += count
                assert total / rate <= time.now - began + BURST + 1e-6

        asyncio.run(pull())
        assert time.now - began <= total / rate + idle + 1e-6

    async def test_a_burst_after_a_pause_is_a_quarter_of_a_second(self) -> None:
        time = Time()
        limit = RateLimit(1000.0, clock=time, sleep=time.sleep)
        time.now += 3600
        began = time.now
        await limit.spend(250)
        assert time.now == began
        await limit.spend(500)
        assert time.now == began + 0.5

    async def test_all_connections_share_the_limit(self) -> None:
        waits: list[float] = []

        async def note(seconds: float) -> None:
            waits.append(seconds)

        limit = RateLimit(1000.0, clock=Time(), sleep=note)
        await asyncio.gather(*(limit.spend(1000) for _ in range(3)))
        assert waits == [1.0, 2.0, 3.0]

    async def test_no_limit_means_no_wait(self) -> None:
        time = Time()
        limit = RateLimit(None, clock=time, sleep=time.sleep)
        await limit.spend(1 << 60)
        assert time.now == 1000.0
        assert not limit.limited
        assert limit.piece(4096) == 4096

    @pytest.mark.parametrize(("rate", "piece"), [(1e9, 4096), (10_000.0, 1000), (5.0, 1)])
    def test_a_piece_is_a_tenth_of_a_second_up_to_the_buffer_size(self, rate: float, piece: int) -> None:
        assert RateLimit(rate).piece(4096) == piece


class TestTrickles:
    def judge(self) -> SlowConnectionDetector:
        return SlowConnectionDetector(10.0, patience=30.0)

    @pytest.mark.parametrize(
        ("rate", "siblings", "slow"),
        [
            (1e8, [1e8, 1e8], False),
            (2e7, [1e8, 1e8], False),
            (0.051e8, [1e8, 1e8], False),
            (0.049e8, [1e8, 1e8], True),
            (10.0, [1e8], True),
            (0.0, [1e8, 0.0, 1e8], True),
        ],
    )
    def test_a_twentieth_of_the_median_of_the_siblings_is_too_slow(
        self, rate: float, siblings: list[float], slow: bool
    ) -> None:
        assert self.judge().slow(rate, siblings) == slow

    @pytest.mark.parametrize("rate", [0.0, 1.0, 1e9])
    def test_a_connection_without_siblings_is_never_slow(self, rate: float) -> None:
        assert not self.judge().slow(rate, [])

    def test_the_last_range_of_a_file_is_compared_with_finished_ranges(self) -> None:
        judge = self.judge()
        for _ in range(5):
            judge.finished("weights", 1e8)
        assert judge.slow(1e6, judge.alike("weights"))
        assert not judge.slow(1e6, judge.alike("another file"))
        judge.sealed("weights")
        assert not judge.slow(1e6, judge.alike("weights"))

    def test_a_connection_below_64_kib_per_stall_timeout_is_dead(self) -> None:
        judge = self.judge()
        assert judge.dead(LEAST - 1, 30.0, "weights")
        assert not judge.dead(LEAST, 30.0, "weights")
        assert not judge.dead(0, 29.9, "weights")

    def test_a_replacement_gets_more_time_up_to_a_bound(self) -> None:
        judge = self.judge()
        graces = []
        for _ in range(5):
            graces.append(judge.grace("weights"))
            judge.replaced("weights")
        assert graces == [1.0, 2.0, 4.0, 4.0, 4.0]
        assert judge.grace("another file") == 1.0
        assert not judge.dead(0, 119.0, "weights")
        assert judge.dead(0, 120.0, "weights")

    def test_old_rates_are_forgotten(self) -> None:
        judge = self.judge()
        for rate in [1e9] * 16 + [1e7] * 16:
            judge.finished("weights", rate)
        assert judge.typical == 1e7
        assert not judge.slow(1e6, judge.alike("weights"))

    def test_the_typical_rate_is_infinite_before_the_first_finished_range(self) -> None:
        assert self.judge().typical == math.inf


class TestGain:
    def test_64_kib_within_the_window_are_progress(self) -> None:
        gain = ProgressWindow(30.0, clock=Time())
        assert not gain.add(LEAST - 1)
        assert gain.add(1)
        assert not gain.add(LEAST - 1)

    def test_a_trickle_is_never_progress(self) -> None:
        time = Time()
        gain = ProgressWindow(30.0, clock=time)
        for _ in range(1000):
            time.now += 1.0
            assert not gain.add(2000)

    def test_refetched_bytes_are_not_progress(self) -> None:
        gain = ProgressWindow(30.0, clock=Time())
        assert gain.add(LEAST)
        assert not any(gain.add(0) for _ in range(100))


class TestPull:
    async def test_body_seconds_start_with_the_first_byte(self) -> None:
        time = Time()
        pull = Pull(Assignment("f", 0, 1000), asyncio.timeout(None), time)
        time.now += 3600.0
        assert (pull.body_seconds, pull.since_compared.seconds, pull.since_measured.seconds) == (0.0, 0.0, 0.0)
        pull.came(10)
        time.now += 2.0
        assert (pull.body_seconds, pull.since_compared.rate) == (2.0, 5.0)

    async def test_each_measurement_starts_at_the_previous_one(self) -> None:
        time = Time()
        pull = Pull(Assignment("f", 0, 1000), asyncio.timeout(None), time)
        pull.came(0)
        time.now += 1.0
        pull.came(100)
        pull.compared()
        time.now += 1.0
        pull.came(7)
        assert (pull.since_compared.count, pull.since_compared.seconds) == (7, 1.0)
        assert (pull.since_measured.count, pull.since_measured.seconds) == (107, 2.0)

    async def test_a_connection_that_waits_for_this_process_is_not_slow(self) -> None:
        time = Time()
        pull = Pull(Assignment("f", 0, 1000), asyncio.timeout(None), time)
        pull.came(100)
        time.now += 2
        with pull.held_up():
            time.now += 50
            assert pull.since_compared == pull.since_measured == Mark(100, 2.0)
        time.now += 1
        assert (pull.body_seconds, pull.since_compared.seconds) == (3.0, 3.0)
