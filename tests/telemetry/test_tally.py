"""The sums of all events, with a clock that the test sets."""

from __future__ import annotations

import pytest

from fetcher.events import (
    BytesDiscarded,
    BytesHashed,
    BytesReceived,
    Committing,
    ConnectionsActive,
    Event,
    FileVerified,
    Finished,
    LeaseWaiting,
    Planned,
    Resolved,
    Resolving,
)
from fetcher.telemetry.tally import STILL, WINDOW, Phase, Tally
from tests.telemetry.conftest import Clock

FINISHED = Finished("/cache/key", "abc", 2, 100, 60, 40, 1.5, cached=False, verified=True, stale=False)


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(clock)


def feed(tally: Tally, *events: Event) -> None:
    for event in events:
        tally.add(event)


def test_held_bytes_count_as_done_but_not_as_fetched(tally: Tally) -> None:
    feed(tally, Planned(2, 100, 40, 4), BytesReceived("a", 10), BytesReceived("b", 5))
    assert (tally.done, tally.total, tally.fetched) == (55, 100, 15)


def test_discarded_bytes_no_longer_count_as_done(tally: Tally) -> None:
    feed(tally, Planned(1, 100, 0, 4), BytesReceived("a", 100), BytesDiscarded("a", 30))
    assert (tally.done, tally.fetched, tally.phase) == (70, 100, "fetching")


def test_done_never_falls_below_zero(tally: Tally) -> None:
    feed(tally, Planned(1, 100, 10, 4), BytesDiscarded("a", 30))
    assert tally.done == 0


def test_hashed_bytes_never_exceed_the_total(tally: Tally) -> None:
    feed(tally, Planned(1, 100, 0, 4), BytesHashed("a", 80), BytesHashed("a", 80))
    assert tally.hashed == 100


def test_files_and_connections_are_counted(tally: Tally) -> None:
    feed(tally, Planned(2, 100, 0, 4), ConnectionsActive(3), FileVerified("a", 50, True), ConnectionsActive(2))
    assert (tally.verified, tally.files, tally.connections) == (1, 2, 2)


class TestPhase:
    @pytest.mark.parametrize(
        ("event", "phase"),
        [
            (Resolving("hf://org/model"), "resolving"),
            (LeaseWaiting("somebody", 1.0, None, None), "waiting"),
            (Resolved("hf://org/model", "abc", 2, 100), "preparing"),
            (Planned(2, 100, 40, 4), "fetching"),
            (Planned(1, 0, 0, 4), "fetching"),
            (Planned(2, 100, 100, 4), "verifying"),
            (Planned(2, 100, 0, 0), "verifying"),
            (Committing("/cache/key"), "committing"),
            (FINISHED, "done"),
        ],
    )
    def test_each_phase_begins_with_its_event(self, tally: Tally, event: Event, phase: Phase) -> None:
        assert tally.phase == "starting"
        feed(tally, event)
        assert tally.phase == phase

    def test_byte_counts_do_not_change_the_phase(self, tally: Tally) -> None:
        feed(tally, Planned(2, 100, 0, 4), BytesReceived("a", 99), BytesHashed("a", 99), FileVerified("a", 99, True))
        assert tally.phase == "fetching"

    def test_the_last_byte_turns_fetching_into_verifying(self, tally: Tally) -> None:
        feed(tally, Planned(2, 100, 40, 4), BytesReceived("a", 60), BytesHashed("a", 30))
        assert (tally.phase, tally.position) == ("verifying", 30)

    def test_with_an_unknown_size_fetching_stays_fetching(self, tally: Tally) -> None:
        feed(tally, Planned(1, 0, 0, 4), BytesReceived("a", 60))
        assert (tally.phase, tally.position, tally.seconds_left()) == ("fetching", 60, None)


class TestRate:
    def test_the_rate_covers_the_last_seconds(self, tally: Tally, clock: Clock) -> None:
        feed(tally, Planned(1, 10_000, 0, 4))
        for _ in range(30):
            clock.now += 1.0
            feed(tally, BytesReceived("a", 100))
        assert tally.rate() == pytest.approx(100.0)
        assert tally.seconds_left() == pytest.approx(70.0)

    def test_many_small_pieces_give_the_same_rate_as_few_large_ones(self, tally: Tally, clock: Clock) -> None:
        feed(tally, Planned(1, 10_000, 0, 4))
        for _ in range(1000):
            clock.now += 0.01
            feed(tally, BytesReceived("a", 1))
        assert tally.rate() == pytest.approx(100.0, rel=0.05)

    def test_the_rate_falls_to_zero_during_a_stall(self, tally: Tally, clock: Clock) -> None:
        feed(tally, Planned(1, 10_000, 0, 4))
        for _ in range(5):
            clock.now += 1.0
            feed(tally, BytesReceived("a", 100))
        rates = []
        for _ in range(3):
            clock.now += WINDOW / 2
            rates.append(tally.rate())
        assert rates == sorted(rates, reverse=True)
        assert (rates[-1], tally.seconds_left()) == (0.0, None)

    def test_no_time_left_is_estimated_during_a_stall(self, tally: Tally, clock: Clock) -> None:
        tally.add(Planned(1, 10**10, 0, 4))
        for _ in range(5):
            clock.now += 1.0
            tally.add(BytesReceived("a", 10**6))
        assert tally.seconds_left() is not None
        clock.now += STILL + 0.1
        assert (tally.rate() > 0, tally.seconds_left()) == (True, None)
        tally.add(BytesReceived("a", 10**6))
        assert tally.seconds_left() is not None

    def test_while_verifying_the_rate_is_that_of_hashing(self, tally: Tally, clock: Clock) -> None:
        feed(tally, Planned(1, 1000, 1000, 4))
        for _ in range(5):
            clock.now += 1.0
            feed(tally, BytesHashed("a", 100))
        assert tally.rate() == pytest.approx(100.0)
        assert tally.seconds_left() == pytest.approx(5.0)

    def test_held_bytes_do_not_count_in_the_rate(self, tally: Tally, clock: Clock) -> None:
        feed(tally, Planned(1, 1000, 900, 4))
        clock.now += 1.0
        assert tally.rate() == 0.0
