"""Retries: with growing delays, never earlier than the server asked for, and while there is progress."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.engine.retry import FIRST_DELAY, LONGEST_DELAY, VIOLATED_FOR, VIOLATIONS, Asker, Patience, Violations
from fetcher.errors import BadResponse, NotFound, RateLimited, Stalled, Transient, Unreachable
from fetcher.events import Event, Retrying, silent


class Time:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    """The jitter at its maximum."""
    assert low == 0.0
    return high


def none_at_all(low: float, high: float) -> float:
    return min(low, high)


class TestDelays:
    def test_delays_double_up_to_half_a_minute(self) -> None:
        patience = Patience(1e9, clock=Time(), uniform=longest)
        delays = [patience.delay(Unreachable("down"), attempt) for attempt in range(1, 10)]
        assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        assert (delays[0], delays[-1]) == (FIRST_DELAY, LONGEST_DELAY)
        assert patience.delay(Unreachable("down"), 10**6) == LONGEST_DELAY

    @given(st.floats(0, 400), st.integers(1, 40), st.floats(0, 1), st.floats(0, 299))
    def test_a_delay_is_at_least_what_the_server_asked_for_and_at_most_the_time_left(
        self, asked: float, attempt: int, chance: float, gone: float
    ) -> None:
        time = Time()
        patience = Patience(300.0, clock=time, uniform=lambda low, high: low + chance * (high - low))
        time.now += gone
        error, left = Unreachable("down", retry_after=asked), 300.0 - gone
        if asked > left + 1e-6:
            with pytest.raises(Unreachable):
                patience.delay(error, attempt)
        elif asked < left - 1e-6:
            delay = patience.delay(error, attempt)
            assert asked <= delay <= left + 1e-6
            assert delay <= asked + LONGEST_DELAY

    def test_the_last_try_is_just_before_the_end(self) -> None:
        time = Time()
        patience = Patience(300.0, clock=time, uniform=longest)
        time.now += 297.0
        assert patience.delay(Unreachable("down"), 9) == 3.0

    def test_after_the_end_the_error_is_final_and_says_why(self) -> None:
        time = Time()
        patience = Patience(300.0, clock=time)
        time.now += 300.0
        with pytest.raises(Stalled) as caught:
            patience.delay(Stalled("nothing came", path="a.bin"), 1)
        assert str(caught.value) == "nothing came; gave up after 300 s without progress (--retry-for)"
        assert caught.value.path == "a.bin"

    def test_progress_restarts_the_time(self) -> None:
        time = Time()
        patience = Patience(300.0, clock=time, uniform=none_at_all)
        time.now += 299.0
        patience.progressed()
        time.now += 299.0
        assert patience.delay(Unreachable("down"), 1) == 0.0
        time.now += 1.0
        with pytest.raises(Unreachable):
            patience.delay(Unreachable("down"), 1)

    @pytest.mark.parametrize("kind", [RateLimited, Unreachable])
    def test_a_retry_after_beyond_the_retry_time_ends_the_retries_immediately(self, kind: type[Transient]) -> None:
        patience = Patience(300.0, clock=Time())
        with pytest.raises(kind, match="asks to wait 301 s, longer than --retry-for allows") as caught:
            patience.delay(kind("too many requests", retry_after=301.0), 1)
        assert caught.value.retry_after == 301.0
        assert patience.delay(kind("too many requests", retry_after=300.0), 1) == 300.0

    def test_a_short_retry_after_is_not_blamed_at_the_end_of_the_retry_time(self) -> None:
        time = Time()
        patience = Patience(300.0, clock=time)
        time.now += 300.0
        with pytest.raises(RateLimited, match="gave up after 300 s without progress"):
            patience.delay(RateLimited("too many requests", retry_after=5.0), 60)


class TestViolations:
    """A server that breaks the protocol for longer than a moment is given up, for any retry time."""

    WRONG = BadResponse("bytes 5-9 for bytes=0-4", path="a.bin")

    def test_a_repeated_violation_is_given_up_after_some_tries_and_seconds(self) -> None:
        time = Time()
        violations = Violations(time)
        for _ in range(VIOLATIONS - 1):
            violations.failed(self.WRONG)
            time.now += VIOLATED_FOR
        with pytest.raises(
            BadResponse, match="bytes 5-9 for bytes=0-4; 5 answers in a row broke the protocol; check HF_ENDPOINT"
        ) as caught:
            violations.failed(self.WRONG)
        assert caught.value.path == "a.bin"

    def test_simultaneous_violations_do_not_end_the_retries(self) -> None:
        violations = Violations(Time())
        for _ in range(100):
            violations.failed(self.WRONG)

    @pytest.mark.parametrize("between", [None, Unreachable("down")], ids=["a right answer", "another error"])
    def test_any_other_result_resets_the_count(self, between: Transient | None) -> None:
        time = Time()
        violations = Violations(time)
        for _ in range(10 * VIOLATIONS):
            time.now += VIOLATED_FOR / 2
            violations.failed(self.WRONG)
            violations.answered() if between is None else violations.failed(between)

    def test_other_errors_are_never_counted(self) -> None:
        time = Time()
        violations = Violations(time)
        for _ in range(10 * VIOLATIONS):
            time.now += VIOLATED_FOR
            violations.failed(Stalled("silent"))

    def test_the_end_of_the_retry_time_gives_the_same_advice(self) -> None:
        with pytest.raises(BadResponse, match=r"without progress.*check HF_ENDPOINT and the proxy"):
            Patience(0.0, clock=Time()).delay(self.WRONG, 1)

    async def test_each_request_of_a_sequence_is_counted_separately(self) -> None:
        time, tries = Time(), 0

        async def call() -> None:
            nonlocal tries
            tries += 1
            time.now += VIOLATED_FOR
            raise BadResponse("the answer is no JSON")

        with pytest.raises(BadResponse, match="in a row"):
            await Asker(Patience(1e9, clock=time, uniform=none_at_all), silent)(call)
        assert tries == VIOLATIONS


class TestAsker:
    async def test_a_transient_error_is_retried_and_reported(self) -> None:
        outcomes: list[Transient | str] = [Unreachable("down", path="f"), Stalled("silent"), "done"]
        events: list[Event] = []

        async def call() -> str:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Transient):
                raise outcome
            return outcome

        patience = Patience(300.0, uniform=none_at_all)
        assert await Asker(patience, events.append)(call) == "done"
        assert events == [Retrying("Unreachable", "down", "f", 1, 0.0), Retrying("Stalled", "silent", None, 2, 0.0)]

    async def test_success_is_progress(self) -> None:
        time = Time()
        patience = Patience(300.0, clock=time, uniform=none_at_all)
        time.now += 299.0

        async def call() -> None:
            """Succeeds at the first try."""

        await Asker(patience, silent)(call)
        time.now += 299.0
        assert patience.delay(Unreachable("down"), 1) == 0.0

    async def test_a_final_error_is_not_retried(self) -> None:
        tries = 0

        async def call() -> None:
            nonlocal tries
            tries += 1
            raise NotFound("no such file")

        with pytest.raises(NotFound):
            await Asker(Patience(300.0), silent)(call)
        assert tries == 1
