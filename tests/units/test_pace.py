"""The rate a user allows is kept exactly, and what is far slower than its siblings is told from what is merely slow."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.engine.pace import LEAST, Gain, RateLimit, TrickleJudge
from fetcher.engine.pull import Pull
from fetcher.engine.schedule import Assignment

BURST = 0.25
"""Seconds' worth that may come at once after a pause."""


class Time:
    """A clock that stands still but for what is slept."""

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
    def test_never_faster_than_allowed_and_never_slower_than_needed(self, moves: list[tuple[float, int]]) -> None:
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

    async def test_after_a_pause_a_quarter_of_a_second_comes_at_once_and_no_more(self) -> None:
        time = Time()
        limit = RateLimit(1000.0, clock=time, sleep=time.sleep)
        time.now += 3600
        began = time.now
        await limit.spend(250)
        assert time.now == began
        await limit.spend(500)
        assert time.now == began + 0.5

    async def test_all_connections_share_it(self) -> None:
        waits: list[float] = []

        async def note(seconds: float) -> None:
            waits.append(seconds)

        limit = RateLimit(1000.0, clock=Time(), sleep=note)
        await asyncio.gather(*(limit.spend(1000) for _ in range(3)))
        assert waits == [1.0, 2.0, 3.0]

    async def test_without_a_limit_nobody_waits(self) -> None:
        time = Time()
        limit = RateLimit(None, clock=time, sleep=time.sleep)
        await limit.spend(1 << 60)
        assert time.now == 1000.0
        assert not limit.limited
        assert limit.piece(4096) == 4096

    @pytest.mark.parametrize(("rate", "piece"), [(1e9, 4096), (10_000.0, 1000), (5.0, 1)])
    def test_a_piece_is_a_tenth_of_a_second_within_the_buffer_and_never_nothing(self, rate: float, piece: int) -> None:
        assert RateLimit(rate).piece(4096) == piece


class TestTrickles:
    def judge(self) -> TrickleJudge:
        return TrickleJudge(10.0, patience=30.0)

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
    def test_a_twentieth_of_the_siblings_median_is_too_slow(self, rate: float, siblings: list[float], slow: bool) -> None:
        assert self.judge().slow(rate, siblings) == slow

    @pytest.mark.parametrize("rate", [0.0, 1.0, 1e9])
    def test_without_a_sibling_nothing_is_slow(self, rate: float) -> None:
        assert not self.judge().slow(rate, [])

    def test_the_last_one_of_a_file_is_measured_by_those_of_the_file_that_finished(self) -> None:
        judge = self.judge()
        for _ in range(5):
            judge.finished("weights", 1e8)
        assert judge.slow(1e6, judge.alike("weights"))
        assert not judge.slow(1e6, judge.alike("another file"))
        judge.sealed("weights")
        assert not judge.slow(1e6, judge.alike("weights"))

    def test_alone_it_is_dead_when_a_whole_stall_timeout_brought_less_than_64_kib(self) -> None:
        judge = self.judge()
        assert judge.dead(LEAST - 1, 30.0, "weights")
        assert not judge.dead(LEAST, 30.0, "weights")
        assert not judge.dead(0, 29.9, "weights")

    def test_one_that_replaces_another_is_given_longer_up_to_a_bound(self) -> None:
        judge = self.judge()
        graces = []
        for _ in range(5):
            graces.append(judge.grace("weights"))
            judge.replaced("weights")
        assert graces == [1.0, 2.0, 4.0, 4.0, 4.0]
        assert judge.grace("another file") == 1.0
        assert not judge.dead(0, 119.0, "weights")
        assert judge.dead(0, 120.0, "weights")

    def test_who_finished_long_ago_is_forgotten(self) -> None:
        judge = self.judge()
        for rate in [1e9] * 16 + [1e7] * 16:
            judge.finished("weights", rate)
        assert judge.typical == 1e7
        assert not judge.slow(1e6, judge.alike("weights"))

    def test_nothing_is_typical_before_anyone_finished(self) -> None:
        assert self.judge().typical == math.inf


class TestGain:
    def test_64_kib_within_the_window_are_progress(self) -> None:
        gain = Gain(30.0, clock=Time())
        assert not gain.add(LEAST - 1)
        assert gain.add(1)
        assert not gain.add(LEAST - 1)

    def test_a_trickle_is_none_however_long_it_lasts(self) -> None:
        time = Time()
        gain = Gain(30.0, clock=time)
        for _ in range(1000):
            time.now += 1.0
            assert not gain.add(2000)

    def test_what_was_here_before_is_none(self) -> None:
        gain = Gain(30.0, clock=Time())
        assert gain.add(LEAST)
        assert not any(gain.add(0) for _ in range(100))


class TestPull:
    async def test_only_a_body_has_seconds_and_it_begins_with_its_first_byte(self) -> None:
        time = Time()
        pull = Pull(Assignment("f", 0, 1000), asyncio.timeout(None), time)
        time.now += 3600.0
        assert (pull.body_seconds, pull.since_compared.seconds, pull.since_measured.seconds) == (0.0, 0.0, 0.0)
        pull.came(10)
        time.now += 2.0
        assert (pull.body_seconds, pull.since_compared.rate) == (2.0, 5.0)

    async def test_each_look_begins_anew(self) -> None:
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
