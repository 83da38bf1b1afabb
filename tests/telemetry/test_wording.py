"""The exact sentences of bar and log."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fetcher.events import (
    BytesHashed,
    BytesLoaded,
    BytesReceived,
    Committing,
    ConnectionsActive,
    Copied,
    Disputed,
    Event,
    FileVerified,
    LeaseWaiting,
    LoadEnded,
    LoadPlanned,
    MirrorAvoided,
    MirrorBanned,
    Mismatched,
    Noted,
    PeersFound,
    Pinned,
    Planned,
    Rechecked,
    Resolved,
    Resolving,
    Retrying,
    TakenOver,
    Warned,
)
from fetcher.quantities import size
from fetcher.telemetry.tally import Tally
from fetcher.telemetry.wording import counted, duration, notable, progress, share, summary, waiting
from tests.telemetry.conftest import Clock
from tests.telemetry.test_tally import FINISHED

MiB, GiB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * GiB, "5.0 GiB"), (3 << 40, "3.0 TiB"), (5 << 50, "5120.0 TiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.046, "46 ms"),
        (0.0949, "95 ms"),
        (0.095, "0.1 s"),
        (9.94, "9.9 s"),
        (29.4, "29 s"),
        (59.7, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_is_singular() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


class TestProgress:
    def shown(self, clock: Clock, *events: Event, pause: float = 1.0) -> str:
        tally = Tally(clock)
        for event in events:
            clock.now += pause
            tally.add(event)
        return progress(tally)

    def test_while_fetching(self, clock: Clock) -> None:
        received = [BytesReceived("a", GiB)] * 3
        line = self.shown(clock, Planned(4, 15 * GiB, 0, 16), ConnectionsActive(16), *received)
        assert line == "3.0 GiB of 15.0 GiB (20 %), 1.0 GiB/s, 12 s left, 16 connections"

    def test_during_a_stall(self, clock: Clock) -> None:
        line = self.shown(clock, Planned(4, 15 * GiB, 3 * GiB, 16), ConnectionsActive(1))
        assert line == "3.0 GiB of 15.0 GiB (20 %), no data arriving, 1 connection"

    def test_of_an_unknown_size(self, clock: Clock) -> None:
        line = self.shown(clock, Planned(1, 0, 0, 16), ConnectionsActive(1), *[BytesReceived("a", 10 * MiB)] * 2)
        assert line == "20.0 MiB, 10.0 MiB/s, 1 connection"

    def test_of_more_than_was_planned(self, clock: Clock) -> None:
        events = [BytesReceived("a", 10 * MiB), BytesHashed("a", 5 * MiB)]
        assert "%" not in self.shown(clock, Planned(2, 0, 0, 16), *events)

    def test_while_verifying_it_shows_how_much_is_checked(self, clock: Clock) -> None:
        hashed = [BytesHashed("a", GiB), BytesHashed("b", GiB), FileVerified("b", GiB, True)]
        line = self.shown(clock, Planned(4, 8 * GiB, 8 * GiB, 16), *hashed)
        assert line == "checked 2.0 GiB of 8.0 GiB (25 %), 512.0 MiB/s, 12 s left, 1 of 4 files verified"

    def test_before_the_first_file_is_checked(self, clock: Clock) -> None:
        line = self.shown(clock, Planned(1, 8 * GiB, 0, 0))
        assert line == "checked 0 B of 8.0 GiB (0 %), reading, 0 of 1 file verified"

    @pytest.mark.parametrize(
        ("events", "line"),
        [
            ([], "starting"),
            ([Resolving("hf://org/model")], "asking the source"),
            ([Resolved("hf://org/model", "abc", 2, 100)], "checking files that are already present"),
            ([LeaseWaiting("somebody", 1.0, None, None)], "waiting for another process"),
            ([Planned(2, 100, 0, 4), Committing("/cache/key")], "moving files into place"),
        ],
    )
    def test_of_phases_without_a_measure(self, clock: Clock, events: list[Event], line: str) -> None:
        assert self.shown(clock, *events) == line

    @pytest.mark.parametrize("held", [0, 100])
    @pytest.mark.parametrize("total", [0, 100])
    @pytest.mark.parametrize("connections", [0, 4])
    def test_it_never_shows_0_of_0(self, clock: Clock, held: int, total: int, connections: int) -> None:
        assert not re.search(r"\b0 B of 0\b", self.shown(clock, Planned(0, total, min(held, total), connections)))


class TestNotable:
    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (Resolved("hf://org/model", "abc", 1, 2048), "hf://org/model at abc: 1 file, 2.0 KiB"),
            (Resolved("https://host/file", None, 2, 2048), "https://host/file: 2 files, 2.0 KiB"),
            (Planned(2, 2048, 1024, 4), "1.0 KiB of 2.0 KiB already present and checked"),
            (Planned(2, 2048, 0, 4), None),
            (Rechecked("a", 2048, 1024), "a: 1.0 KiB of 2.0 KiB from an earlier attempt are intact"),
            (Rechecked("a", 2048, 2048), None),
            (TakenOver("node-1", True), "continuing the unfinished fetch of node-1"),
            (TakenOver("node-1", False), "continuing the unfinished fetch of node-1 in new files"),
            (Retrying("Stalled", "no bytes", "a", 1, 2.0), "Stalled: a: no bytes; retrying in 2.0 s"),
            (Retrying("RateLimited", "429", None, 1, 60), "RateLimited: 429; retrying in 1 min 0 s"),
            (
                Mismatched("a", "sha256:1", "sha256:2", 1, 3),
                "DigestMismatch: a: expected sha256:1, got sha256:2; fetching it again (attempt 1 of 3)",
            ),
            (
                PeersFound(7, 8, passed_on=True),
                "found 7 of 8 peers with this artifact; what this node has is passed on",
            ),
            (
                PeersFound(0, 1, passed_on=False),
                "found 0 of 1 peers with this artifact; no server here passes on what this node has",
            ),
            (
                MirrorAvoided("http://node:8650", "no answer", "a"),
                "MirrorFailed: http://node:8650: no answer; its ranges come from elsewhere for a while",
            ),
            (
                Disputed("a", "http://node:8650", 2048),
                "DigestMismatch: a: fetching again 2.0 KiB that came from http://node:8650",
            ),
            (Disputed("a", "", 2048), "DigestMismatch: a: fetching again 2.0 KiB that an earlier attempt brought"),
            (
                MirrorBanned("http://node:8650", "a"),
                "warning: MirrorBanned: http://node:8650 sent other bytes of a; it is asked for nothing more",
            ),
            (Noted("modelcaches a/m", "Ready"), "modelcaches a/m: Ready"),
            (Warned("Unreachable", "kept"), "warning: Unreachable: kept"),
            (Committing("/cache/key"), "moving files into /cache/key"),
            (BytesReceived("a", 1), None),
        ],
    )
    def test_each_event_is_one_line_or_none(self, event: Event, line: str | None) -> None:
        assert notable(event) == line

    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (LeaseWaiting("node-1", 3.2, None, None), "waiting for node-1, which is fetching the same artifact (waited 3.2 s)"),
            (
                LeaseWaiting("node-1", 90, GiB, 4 * GiB),
                "waiting for node-1, which is fetching the same artifact: 1.0 GiB of 4.0 GiB fetched (waited 1 min 30 s)",
            ),
        ],
    )
    def test_a_waiting_process_names_the_holder(self, event: LeaseWaiting, line: str) -> None:
        assert waiting(event) == line


class TestSummary:
    def test_it_shows_size_rate_and_verification(self) -> None:
        event = replace(FINISHED, bytes=3 * MiB, bytes_fetched=2 * MiB, bytes_reused=MiB, seconds=2.0)
        line = "done: 2 files, 3.0 MiB in 2.0 s: 2.0 MiB fetched, 1.0 MiB/s, 1.0 MiB reused; every digest verified"
        assert summary(event) == line

    def test_it_does_not_claim_more_than_was_verified(self) -> None:
        event = replace(FINISHED, verified=False, verified_by={"sha256": 4, "crc64nvme": 2, "size": 1})
        assert summary(event).endswith(
            "; not every file has a published digest: verified 4 by sha256, 2 by crc64nvme, 1 only by size and transfer"
        )

    def test_it_names_who_sent_the_bytes_if_not_the_origin_alone(self) -> None:
        event = replace(FINISHED, bytes_fetched=3 * MiB, bytes_from={"origin": MiB, "http://node:8650": 2 * MiB})
        assert " 3.0 MiB fetched (2.0 MiB from http://node:8650, 1.0 MiB from origin), " in summary(event)
        assert "(" not in summary(replace(FINISHED, bytes_from={"origin": 60}))

    def test_a_hit_says_so(self) -> None:
        assert summary(replace(FINISHED, cached=True)) == "already complete: 2 files, 100 B"

    def test_a_stale_hit_says_that_too(self) -> None:
        line = "already complete: 2 files, 100 B (could not ask the source for a newer version)"
        assert summary(replace(FINISHED, cached=True, stale=True)) == line


class TestLoader:
    def test_progress_names_the_work(self, clock: Clock) -> None:
        tally = Tally(clock)
        tally.add(LoadPlanned("warming", 4, 4 * GiB, GiB))
        tally.add(BytesLoaded("a", GiB))
        clock.now += 1
        tally.add(BytesLoaded("b", GiB))
        assert progress(tally) == "warming: 3.0 GiB of 4.0 GiB (75 %), 1.0 GiB/s, 1.0 s left"
        tally.add(LoadEnded())
        assert progress(tally) == "done"

    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (LoadPlanned("copying", 4, 4 * GiB, 0), None),
            (LoadPlanned("copying", 4, 4 * GiB, GiB), "1.0 GiB of 4.0 GiB already present"),
            (BytesLoaded("a", 1), None),
            (Copied("/ram/model", 2, GiB, 0.5, cached=True, verified=True), "already complete: 2 files, 1.0 GiB"),
            (
                Copied("/ram/model", 2, GiB, 0.5, cached=False, verified=True),
                "done: 2 files, 1.0 GiB in 0.5 s, 2.0 GiB/s; every chunk verified",
            ),
            (
                Copied("/ram/model", 1, 0, 0.0, cached=False, verified=False),
                "done: 1 file, 0 B in 0 ms; not verified: no manifest, so only sizes were compared",
            ),
            (Pinned(True, GiB, GiB, GiB, 0), "ready: 100 % of 1.0 GiB resident, 1.0 GiB locked"),
            (
                Pinned(False, GiB - 1, 0, GiB, 2 * MiB),
                "not ready: 99.9 % of 1.0 GiB resident, not locked, 2.0 MiB read again",
            ),
            (Pinned(False, None, 0, GiB, 0), "not ready: unknown of 1.0 GiB resident, not locked"),
        ],
    )
    def test_each_event_is_one_line_or_none(self, event: Event, line: str | None) -> None:
        assert notable(event) == line

    @pytest.mark.parametrize(
        ("part", "text"),
        [(None, "unknown"), (0, "0 %"), (1, "0.1 %"), (GiB // 2, "50.0 %"), (GiB - 1, "99.9 %"), (GiB, "100 %")],
    )
    def test_only_all_of_it_is_100_percent(self, part: int | None, text: str) -> None:
        assert share(part, GiB) == text
