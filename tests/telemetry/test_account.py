"""The numbers of one run, from its events and its outcome."""

from __future__ import annotations

from typing import get_args

import pytest

from fetcher.cli.metrics import PHASES, all_metrics, metrics
from fetcher.events import (
    BytesDiscarded,
    BytesHashed,
    BytesLoaded,
    BytesReceived,
    Committing,
    ConnectionsActive,
    Disputed,
    Event,
    FileVerified,
    Finished,
    LeaseWaiting,
    LoadPlanned,
    MirrorBanned,
    Mismatched,
    Planned,
    Resolving,
    Retrying,
)
from fetcher.telemetry.account import Account
from fetcher.telemetry.exposition import Metric
from fetcher.telemetry.tally import Phase
from loader.cli import metrics as loader_metrics
from loader.residency.holding import State
from tests.telemetry.conftest import Clock

UNREACHABLE = Retrying("Unreachable", "connection refused", "a", 1, 0.5)


@pytest.fixture
def account(clock: Clock) -> Account:
    return Account("fetcher", PHASES, clock=clock, now=clock)


def feed(account: Account, *events: Event) -> None:
    for event in events:
        account(event)


def numbers(account: Account) -> dict[str, float]:
    """Return name and labels → number."""
    return {
        metric.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for metric in metrics(account)
        for sample in metric.samples
    }


def phases(account: Account) -> list[str]:
    return [name.split()[1] for name, value in numbers(account).items() if name.startswith("fetcher_phase") and value]


class TestBytes:
    def test_sizes_are_unknown_before_the_plan(self, account: Account) -> None:
        feed(account, Resolving("hf://org/model"))
        seen = numbers(account)
        assert not {"fetcher_expected_bytes", "fetcher_files"} & set(seen)
        assert (seen["fetcher_received_bytes_total"], seen["fetcher_reused_bytes"]) == (0, 0)

    def test_held_bytes_are_reused_and_new_bytes_are_received(self, account: Account) -> None:
        feed(account, Planned(2, 100, 40, 4), BytesReceived("a", 10), BytesHashed("a", 45))
        seen = numbers(account)
        assert (seen["fetcher_expected_bytes"], seen["fetcher_reused_bytes"]) == (100, 40)
        assert (seen["fetcher_received_bytes_total"], seen["fetcher_hashed_bytes_total"]) == (10, 45)

    def test_a_file_without_a_digest_does_not_count_as_verified(self, account: Account) -> None:
        feed(account, Planned(2, 100, 0, 4), FileVerified("a", 60, True), FileVerified("b", 40, False))
        seen = numbers(account)
        assert (seen["fetcher_files"], seen["fetcher_verified_files"], seen["fetcher_verified_bytes"]) == (2, 1, 60)

    def test_a_changed_source_resets_the_verified_files(self, account: Account) -> None:
        feed(account, Planned(1, 60, 0, 4), FileVerified("a", 60, True), Planned(1, 70, 0, 4))
        assert (numbers(account)["fetcher_verified_files"], numbers(account)["fetcher_verified_bytes"]) == (0, 0)

    def test_mismatches_and_discarded_bytes_are_counted(self, account: Account) -> None:
        feed(account, Planned(1, 60, 0, 4), Mismatched("a", "sha256:a", "sha256:b", 1, 2), BytesDiscarded("a", 16))
        assert (numbers(account)["fetcher_mismatches_total"], numbers(account)["fetcher_discarded_bytes_total"]) == (1, 16)

    def test_bytes_are_counted_by_who_sent_them_and_banned_mirrors_are_named(self, account: Account) -> None:
        mirror = "http://node:8650"
        feed(account, BytesReceived("a", 10), BytesReceived("a", 20, mirror), BytesReceived("b", 5, mirror))
        feed(account, Disputed("a", mirror, 20), MirrorBanned(mirror, "a"))
        assert account.supplied == {"origin": 10, mirror: 25}
        assert numbers(account)["fetcher_received_bytes_total"] == 35
        assert (account.mismatches, account.banned) == (1, frozenset({mirror}))

    def test_all_numbers_of_a_hit_are_known_at_once(self, account: Account) -> None:
        feed(account, Finished("/cache/key", "abc", 2, 100, 0, 100, 0.1, cached=True, verified=True, stale=False))
        seen = numbers(account)
        assert (seen["fetcher_expected_bytes"], seen["fetcher_reused_bytes"], seen["fetcher_files"]) == (100, 100, 2)
        assert (seen["fetcher_cached"], seen["fetcher_stale"], seen["fetcher_received_bytes_total"]) == (1, 0, 0)

    def test_warmed_bytes_do_not_count_as_received(self, account: Account) -> None:
        feed(account, Planned(2, 100, 40, 4), BytesReceived("a", 60))
        feed(account, Finished("/cache/key", "abc", 2, 100, 60, 40, 1.5, cached=False, verified=True, stale=False))
        feed(account, LoadPlanned("warming", 1, 90, 0), BytesLoaded("a", 90))
        seen = numbers(account)
        assert phases(account) == ["warming"]
        assert (seen["fetcher_expected_bytes"], seen["fetcher_received_bytes_total"], seen["fetcher_files"]) == (100, 60, 2)


class TestRetries:
    def test_every_reason_is_exported_before_it_occurs(self, account: Account) -> None:
        retries = {name.split()[1]: value for name, value in numbers(account).items() if name.startswith("fetcher_retries")}
        assert retries == dict.fromkeys(("BadResponse", "IOError", "RateLimited", "Stalled", "Unreachable"), 0)

    def test_each_retry_is_counted_under_its_reason(self, account: Account) -> None:
        feed(account, UNREACHABLE, UNREACHABLE, Retrying("RateLimited", "429", "a", 1, 1.0))
        seen = numbers(account)
        assert (seen["fetcher_retries_total Unreachable"], seen["fetcher_retries_total RateLimited"]) == (2, 1)

    def test_counts_that_a_thread_is_reading_do_not_change(self, account: Account) -> None:
        before = account.retries
        feed(account, UNREACHABLE)
        assert before["Unreachable"] == 0


class TestConnections:
    def test_there_are_none_after_the_last_byte(self, account: Account) -> None:
        feed(account, Planned(1, 60, 0, 4), ConnectionsActive(3))
        assert numbers(account)["fetcher_connections"] == 3
        feed(account, BytesReceived("a", 60))
        assert numbers(account)["fetcher_connections"] == 0


class TestPhase:
    def test_exactly_one_phase_is_set_at_any_time(self, account: Account) -> None:
        assert phases(account) == ["starting"]
        for event, phase in [
            (LeaseWaiting("node-1", 1.0, None, None), "waiting"),
            (Planned(1, 60, 0, 4), "fetching"),
            (Committing("/cache/key"), "committing"),
        ]:
            feed(account, event)
            assert phases(account) == [phase]

    def test_after_the_end_it_is_done_or_failed(self, account: Account) -> None:
        feed(account, Planned(1, 60, 0, 4))
        account.end("Unreachable", retryable=True)
        assert phases(account) == ["failed"]
        assert numbers(account)["fetcher_result Unreachable true"] == 1

    def test_every_phase_belongs_to_one_of_the_programs(self) -> None:
        assert {*PHASES, *loader_metrics.PHASES} == set(get_args(Phase))


class TestTimes:
    def test_duration_grows_until_the_end(self, account: Account, clock: Clock) -> None:
        clock.now += 3.0
        assert numbers(account)["fetcher_duration_seconds"] == 3
        account.end("Completed", retryable=False)
        clock.now += 5.0
        assert numbers(account)["fetcher_duration_seconds"] == 3

    def test_a_failed_attempt_is_no_progress(self, account: Account, clock: Clock) -> None:
        feed(account, Planned(1, 60, 0, 4))
        began = numbers(account)["fetcher_progress_timestamp_seconds"]
        clock.now += 5.0
        feed(account, UNREACHABLE, ConnectionsActive(1))
        assert numbers(account)["fetcher_progress_timestamp_seconds"] == began
        feed(account, BytesReceived("a", 1))
        assert numbers(account)["fetcher_progress_timestamp_seconds"] == began + 5


EVERY = [*all_metrics(), *loader_metrics.all_load_metrics(), *loader_metrics.hold_metrics(State())]


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
class TestEveryMetric:
    def test_begins_with_its_program_and_has_a_help_text(self, metric: Metric) -> None:
        assert metric.name.startswith(("fetcher_", "loader_"))
        assert metric.help.endswith(".")

    def test_has_few_series(self, metric: Metric) -> None:
        """The number of series does not depend on the number of files."""
        assert len(metric.samples) <= 10
        labels = {"phase", "reason", "retryable", "supplier", "version"}
        assert {label for sample in metric.samples for label in sample.labels} <= labels
