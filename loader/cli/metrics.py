"""The numbers that `loader warm`, `load` and `copy` publish while they run, and `pin` as long as it keeps something."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fetcher.command.publication import published
from fetcher.command.running import Report
from fetcher.events import Subscriber
from fetcher.telemetry.account import Account
from fetcher.telemetry.exposition import Metric
from fetcher.telemetry.tally import Phase
from loader.residency.holding import State

PHASES: tuple[Phase, ...] = ("starting", "warming", "loading", "copying", "done")


def _account() -> Account:
    return Account("loader", PHASES, clock=time.monotonic, now=time.time)


def publish(found: Mapping[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """As `published`, with the numbers of a warming, a loading or a copy."""
    account = _account()
    return published(account, lambda: load_metrics(account), found, report, on_event)


def all_load_metrics() -> list[Metric]:
    """Each one there is, for whoever wants their names: those of a command that has ended."""
    account = _account()
    account.end("Completed", retryable=False)
    return load_metrics(account)


def load_metrics(account: Account) -> list[Metric]:
    tally = account.tally
    return [
        *account.metrics(),
        Metric(
            "loader_expected_bytes", "gauge", "Bytes that are to be there; absent until they are known.", tally.total or None
        ),
        Metric("loader_reused_bytes", "gauge", "Bytes of them that were there already.", tally.held),
        Metric("loader_loaded_bytes_total", "counter", "Bytes of them that were brought.", account.loaded),
        _files(tally.files or None),
    ]


def hold_metrics(state: State) -> list[Metric]:
    return [
        Metric("loader_ready", "gauge", "1 while everything is known to be in memory.", state.ready),
        Metric("loader_total_bytes", "gauge", "Bytes of all files that are kept.", state.total),
        Metric("loader_resident_bytes", "gauge", "Bytes of them in memory; absent where nothing tells.", state.resident),
        Metric("loader_locked_bytes", "gauge", "Bytes of them that can't be reclaimed.", state.locked),
        Metric("loader_locked", "gauge", "1 while all of them are locked.", 0 < state.total == state.locked),
        _files(state.files),
        Metric("loader_rewarmed_bytes_total", "counter", "Bytes that were reclaimed and read again.", state.rewarmed),
        Metric("loader_checkpoint_changes_total", "counter", "Times the checkpoint was replaced.", state.changes),
        Metric("loader_checked_timestamp_seconds", "gauge", "When it was last looked at.", round(state.checked, 3) or None),
    ]


def _files(count: int | None) -> Metric:
    return Metric("loader_files", "gauge", "Files of the checkpoint.", count)
