"""The rate a user allows is kept exactly, and what is far slower than its siblings is told from what is merely slow."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.engine.pace import FLOOR, RateLimit, TrickleJudge

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
                await limit.take(count)
                total += count
                assert total / rate <= time.now - began + BURST + 1e-6

        asyncio.run(pull())
        assert time.now - began <= total / rate + idle + 1e-6

    async def test_after_a_pause_a_quarter_of_a_second_comes_at_once_and_no_more(self) -> None:
        time = Time()
        limit = RateLimit(1000.0, clock=time, sleep=time.sleep)
        time.now += 3600
        began = time.now
        await limit.take(250)
        assert time.now == began
        await limit.take(500)
        assert time.now == began + 0.5

    async def test_all_connections_share_it(self) -> None:
        waits: list[float] = []

        async def note(seconds: float) -> None:
            waits.append(seconds)

        limit = RateLimit(1000.0, clock=Time(), sleep=note)
        await asyncio.gather(*(limit.take(1000) for _ in range(3)))
        assert waits == [1.0, 2.0, 3.0]

    async def test_without_a_limit_nobody_waits(self) -> None:
        time = Time()
        limit = RateLimit(None, clock=time, sleep=time.sleep)
        await limit.take(1 << 60)
        assert time.now == 1000.0
        assert not limit.limited
        assert limit.piece(4096) == 4096

    @pytest.mark.parametrize(("rate", "piece"), [(1e9, 4096), (10_000.0, 1000), (5.0, 1)])
    def test_a_piece_is_a_tenth_of_a_second_within_the_buffer_and_never_nothing(self, rate: float, piece: int) -> None:
        assert RateLimit(rate).piece(4096) == piece


class TestTrickles:
    def judge(self, *, finished: list[float] | None = None) -> TrickleJudge:
        judge = TrickleJudge(10.0, floor=FLOOR)
        for rate in finished or ():
            judge.finished(rate)
        return judge

    @pytest.mark.parametrize(
        ("rates", "slow"),
        [
            ([1e8, 1e8, 1e8], []),
            ([1e8, 1e8, 2e7], []),
            ([1e8, 1e8, 0.051e8], []),
            ([1e8, 1e8, 0.049e8], [2]),
            ([1e8, 10.0], [1]),
            # It is no measure of itself: of the mean of both it would be more than a twentieth.
            ([1e8, 3e6], [1]),
            ([0.0, 1e8, 0.0, 1e8, 1e8], [0, 2]),
        ],
    )
    def test_a_twentieth_of_the_others_median_is_too_slow(self, rates: list[float | None], slow: list[int]) -> None:
        assert self.judge().slow(rates) == slow

    def test_all_alike_are_as_fast_as_the_link_is(self) -> None:
        assert self.judge().slow([2 * FLOOR] * 8) == []

    def test_below_the_floor_is_too_slow_even_alone(self) -> None:
        assert self.judge().slow([FLOOR - 1]) == [0]
        assert self.judge().slow([FLOOR]) == []

    def test_one_too_young_is_neither_judged_nor_a_measure(self) -> None:
        assert self.judge().slow([None, 1e8, None]) == []
        assert self.judge().slow([None, None, FLOOR]) == []

    def test_the_last_one_left_is_measured_by_those_that_finished(self) -> None:
        judge = self.judge(finished=[1e8] * 5)
        assert judge.slow([1e6]) == [0]
        assert judge.slow([1e7]) == []

    def test_who_finished_long_ago_is_forgotten(self) -> None:
        judge = self.judge(finished=[1e9] * 16 + [1e7] * 16)
        assert judge.typical == 1e7
        assert judge.slow([1e6]) == []

    def test_nothing_is_typical_before_anyone_finished(self) -> None:
        assert self.judge().typical == math.inf
