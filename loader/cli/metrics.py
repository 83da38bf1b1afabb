"""The metrics of `loader`: `warm`, `load` and `copy` publish theirs while they run, `hold` as long as it holds files."""

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


def publish(settings: Mapping[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """Return the subscriber of `published` for the metrics of `warm`, `load` or `copy`. Raises ConfigurationError."""
    account = _account()
    return published(account, lambda: load_metrics(account), settings, report, on_event)


def all_load_metrics() -> list[Metric]:
    """Return every metric of a command that has ended, for the reference."""
    account = _account()
    account.end("Completed", retryable=False)
    return load_metrics(account)


def load_metrics(account: Account) -> list[Metric]:
    tally = account.tally
    return [
        *account.metrics(),
        Metric(
            "loader_expected_bytes",
            "gauge",
            "Bytes to warm, load or copy, including reused bytes; absent until known.",
            tally.total or None,
        ),
        Metric("loader_reused_bytes", "gauge", "Bytes that were already in place at the start.", tally.held),
        Metric("loader_loaded_bytes_total", "counter", "Bytes brought in so far.", account.loaded),
        _files(tally.files or None),
    ]


def hold_metrics(state: State) -> list[Metric]:
    return [
        Metric("loader_ready", "gauge", "1 while all held files are known to be in memory.", state.ready),
        Metric("loader_total_bytes", "gauge", "Total size of the held files.", state.total),
        Metric(
            "loader_resident_bytes",
            "gauge",
            "Bytes of the held files in memory; absent where this cannot be measured.",
            state.resident,
        ),
        Metric(
            "loader_locked_bytes",
            "gauge",
            "Bytes of the held files that are locked: the kernel cannot reclaim them.",
            state.locked,
        ),
        Metric("loader_locked", "gauge", "1 while all bytes of the held files are locked.", 0 < state.total == state.locked),
        _files(state.files),
        Metric("loader_rewarmed_bytes_total", "counter", "Bytes that were reclaimed and read again.", state.rewarmed),
        Metric("loader_checkpoint_changes_total", "counter", "Number of times the checkpoint was replaced.", state.changes),
        Metric("loader_checked_timestamp_seconds", "gauge", "Unix time of the last check.", round(state.checked, 3) or None),
    ]


def _files(count: int | None) -> Metric:
    return Metric("loader_files", "gauge", "Number of files of the checkpoint.", count)
