"""The bar during a stall: it says so instead of repeating the last rate."""

from __future__ import annotations

from rich.progress import Progress

from fetcher.events import BytesReceived, ConnectionsActive, LeaseWaiting, Planned
from fetcher.telemetry.bar import Now
from fetcher.telemetry.tally import STILL, WINDOW
from tests.telemetry.conftest import Clock

MiB = 1 << 20


def shown(column: Now) -> str:
    """Return the column as it is drawn now, without a new event."""
    display = Progress(column)
    display.add_task("")
    return column.render(display.tasks[0]).plain


def test_the_rate_sinks_to_zero_without_events(clock: Clock) -> None:
    column = Now(clock=clock)
    for event in (Planned(1, 100 * MiB, 0, 4), ConnectionsActive(4), BytesReceived("a", MiB)):
        column.tally.add(event)
    clock.now += 1.0
    column.tally.add(BytesReceived("a", MiB))
    assert "MiB/s" in shown(column)
    clock.now += 2 * WINDOW
    assert shown(column) == "2.0 MiB of 100.0 MiB (2 %), no data arriving, 4 connections"


def test_a_wait_is_shown_until_something_else_happens(clock: Clock) -> None:
    column = Now(clock=clock)
    column.wait = LeaseWaiting("node-1", 1.0, None, None)
    assert shown(column).startswith("waiting for node-1")
    column.wait = None
    assert shown(column) == "starting"


def test_no_time_is_estimated_during_a_stall_or_for_more_than_two_days(clock: Clock) -> None:
    column = Now(clock=clock)
    column.tally.add(Planned(1, 100 * MiB, 0, 4))
    for _ in range(2):
        column.tally.add(BytesReceived("a", MiB))
        clock.now += 1.0
    assert " left" in shown(column)
    clock.now += STILL
    assert " left" not in shown(column)
    column.tally.add(BytesReceived("a", 1))
    clock.now += WINDOW
    column.tally.add(BytesReceived("a", 1))
    clock.now += 1.0
    assert " left" not in shown(column)
