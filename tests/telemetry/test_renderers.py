"""Log lines, JSON lines and the bar, fed with events; a broken stream stops none of them."""

from __future__ import annotations

import io
import json
import threading
from contextlib import suppress
from dataclasses import fields

import pytest

from fetcher import events
from fetcher.events import (
    BytesHashed,
    BytesReceived,
    ConnectionsActive,
    Event,
    Finished,
    LeaseWaiting,
    Planned,
    Resolving,
    Retrying,
)
from fetcher.telemetry import Kind, subscribed
from fetcher.telemetry.jsonlines import JsonLines
from fetcher.telemetry.log import EVERY, LogLines
from tests.lab.waiting import wait_until
from tests.telemetry.conftest import Clock
from tests.telemetry.test_tally import FINISHED

MiB = 1 << 20


class BrokenStream(io.StringIO):
    """A stream like a pipe whose reader has closed it."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def texts(stream: io.StringIO) -> list[str]:
    """Return the lines without the time at their beginning."""
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]


class TestLogLines:
    @pytest.fixture
    def stream(self) -> io.StringIO:
        return io.StringIO()

    @pytest.fixture
    def lines(self, stream: io.StringIO, clock: Clock) -> LogLines:
        return LogLines(stream, clock=clock)

    def test_progress_is_printed_only_every_few_seconds(self, lines: LogLines, stream: io.StringIO, clock: Clock) -> None:
        lines(Planned(1, 10 * MiB, 0, 4))
        for _ in range(4 * int(EVERY)):
            clock.now += 0.5
            lines.tick()
        assert len(texts(stream)) == 2

    def test_progress_is_printed_also_during_a_stall(self, lines: LogLines, stream: io.StringIO, clock: Clock) -> None:
        lines(Planned(1, 10 * MiB, 0, 4))
        lines(ConnectionsActive(2))
        clock.now += EVERY
        lines.tick()
        assert texts(stream) == ["0 B of 10.0 MiB (0 %), no data arriving, 2 connections"]

    def test_nothing_is_printed_before_the_start_or_after_the_end(
        self, lines: LogLines, stream: io.StringIO, clock: Clock
    ) -> None:
        clock.now += EVERY
        lines.tick()
        lines(FINISHED)
        clock.now += EVERY
        lines.tick()
        assert [line.partition(":")[0] for line in texts(stream)] == ["done"]

    def test_an_outage_of_all_connections_prints_one_line(self, lines: LogLines, stream: io.StringIO, clock: Clock) -> None:
        for number in range(16):
            lines(Retrying("Unreachable", "connection refused", f"file-{number}", 1, 1.0))
        assert len(texts(stream)) == 1
        clock.now += EVERY
        lines(Retrying("Unreachable", "connection refused", "file-0", 2, 2.0))
        assert len(texts(stream)) == 2

    def test_another_reason_prints_another_line(self, lines: LogLines, stream: io.StringIO) -> None:
        lines(Retrying("Unreachable", "connection refused", "a", 1, 1.0))
        lines(Retrying("RateLimited", "429", "a", 1, 1.0))
        assert len(texts(stream)) == 2

    def test_waiting_is_printed_at_once_and_then_every_few_seconds(
        self, lines: LogLines, stream: io.StringIO, clock: Clock
    ) -> None:
        lines(Resolving("hf://org/model"))
        for _ in range(2 * int(EVERY)):
            lines(LeaseWaiting("node-1", clock.now - 1000, None, None))
            lines.tick()
            clock.now += 0.5
        lines.tick()
        assert [line.partition(",")[0] for line in texts(stream)] == ["waiting for node-1"] * 2

    def test_after_the_wait_progress_is_shown_again(self, lines: LogLines, stream: io.StringIO, clock: Clock) -> None:
        lines(LeaseWaiting("node-1", 1.0, None, None))
        lines(Planned(1, 10 * MiB, 0, 4))
        clock.now += EVERY
        lines.tick()
        assert texts(stream)[-1].startswith("0 B of 10.0 MiB")


class TestJsonLines:
    def test_byte_counts_are_summed_over_half_a_second(self, clock: Clock) -> None:
        stream = io.StringIO()
        lines = JsonLines(stream, clock=clock)
        lines(Planned(1, 10 * MiB, 0, 4))
        for _ in range(100):
            clock.now += 0.02
            lines(BytesReceived("a", 1024))
        progress = [json.loads(line) for line in stream.getvalue().splitlines()][1:]
        assert [event["event"] for event in progress] == ["Progress"] * 4
        assert progress[-1]["done"] == progress[-1]["fetched"] > progress[0]["done"]

    def test_every_event_becomes_one_line_that_parses(self, clock: Clock) -> None:
        stream = io.StringIO()
        lines = JsonLines(stream, clock=clock)
        for event in one_of_each():
            clock.now += 1.0
            lines(event)
        parsed = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert len(parsed) == len(one_of_each())
        assert parsed[-1]["ts"] > 0


def one_of_each() -> list[Event]:
    """Return one event of every kind, with values of the right types."""
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event]
    return [kind(*(_value(str(field.type)) for field in fields(kind))) for kind in kinds]


def _value(annotation: str) -> object:
    values: dict[str, object] = {
        "str": "text",
        "int": 1,
        "float": 1.0,
        "bool": True,
        "Literal['warming',": "warming",
        "Literal['clone',": "clone",
        "tuple[str,": ("a",),
        "Mapping[str,": {"sha256": 1},
    }
    return values[annotation.partition(" ")[0]]


@pytest.mark.parametrize("kind", ["bar", "log", "json", "none", "auto"])
class TestEveryRenderer:
    def test_takes_every_event(self, kind: Kind) -> None:
        stream = io.StringIO()
        with subscribed(kind, stream) as on_event:
            for event in one_of_each():
                on_event(event)
        assert bool(stream.getvalue()) == (kind != "none")

    def test_leaves_no_thread_when_its_block_raises(self, kind: Kind) -> None:
        before = threading.active_count()
        with suppress(KeyError), subscribed(kind, io.StringIO()) as on_event:
            on_event(Resolving("hf://org/model"))
            raise KeyError
        wait_until(lambda: threading.active_count() == before, "its thread has ended")


@pytest.mark.parametrize("kind", ["log", "json", "none", "auto"])
def test_a_broken_stream_raises_no_error(kind: Kind) -> None:
    with subscribed(kind, BrokenStream()) as on_event:
        for event in one_of_each():
            on_event(event)


def test_the_summary_is_the_last_line_of_bar_and_log() -> None:
    for kind in ("bar", "log"):
        stream = io.StringIO()
        with subscribed(kind, stream) as on_event:
            on_event(Planned(1, 100, 0, 4))
            on_event(BytesHashed("a", 100))
            on_event(Finished("/cache/key", "abc", 2, 100, 60, 40, 1.5, cached=False, verified=True, stale=False))
        assert stream.getvalue().rstrip().endswith("every digest verified")
