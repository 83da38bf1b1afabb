"""The metrics of `fetcher fetch`, published while it runs and kept in a file after it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fetcher.command.publication import published
from fetcher.command.running import Report
from fetcher.events import Subscriber
from fetcher.telemetry.account import Account
from fetcher.telemetry.exposition import Metric, Sample
from fetcher.telemetry.tally import Phase

PHASES: tuple[Phase, ...] = (
    "starting",
    "resolving",
    "waiting",
    "preparing",
    "fetching",
    "verifying",
    "committing",
    "warming",
    "done",
)


def _account() -> Account:
    return Account("fetcher", PHASES, clock=time.monotonic, now=time.time)


def publish(options: Mapping[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """Publish the metrics of a fetch, as `published` does for any command."""
    account = _account()
    return published(account, lambda: metrics(account), options, report, on_event)


def all_metrics() -> list[Metric]:
    """Return every metric of a fetch that has ended, for the reference and the tests."""
    account = _account()
    account.end("Completed", retryable=False)
    return metrics(account)


def metrics(account: Account) -> list[Metric]:
    return [*account.metrics(), *_bytes(account), *_files(account), *_source(account), *_ending(account)]


def _bytes(account: Account) -> list[Metric]:
    tally, finished = account.tally, account.finished
    expected = finished.bytes if finished else tally.total or None
    reused = finished.bytes_reused if finished else tally.held
    return [
        Metric("fetcher_expected_bytes", "gauge", "Size of the whole artifact in bytes; absent until known.", expected),
        Metric(
            "fetcher_received_bytes_total", "counter", "Bytes received, from the origin and from mirrors.", account.received
        ),
        Metric(
            "fetcher_supplied_bytes_total",
            "counter",
            "The received bytes by who sent them: the origin, or a mirror by its address.",
            [Sample(count, {"supplier": supplier}) for supplier, count in account.supplied.items()],
        ),
        Metric("fetcher_reused_bytes", "gauge", "Bytes that were present before the fetch.", reused),
        Metric("fetcher_hashed_bytes_total", "counter", "Bytes hashed to verify digests.", tally.checked.count),
        Metric("fetcher_verified_bytes", "gauge", "Bytes of files whose digest matched.", account.verified_bytes),
        Metric("fetcher_discarded_bytes_total", "counter", "Bytes discarded, to be fetched again.", account.discarded),
    ]


def _files(account: Account) -> list[Metric]:
    files = account.finished.files if account.finished else account.tally.files or None
    return [
        Metric("fetcher_files", "gauge", "Files of the artifact; absent until known.", files),
        Metric("fetcher_verified_files", "gauge", "Files whose digest matched.", account.verified_files),
        Metric("fetcher_mismatches_total", "counter", "Digests that did not match.", account.mismatches),
    ]


def _source(account: Account) -> list[Metric]:
    tally = account.tally
    connections = tally.connections if account.phase == "fetching" else 0
    retries = [Sample(count, {"reason": reason}) for reason, count in account.retries.items()]
    return [
        Metric("fetcher_connections", "gauge", "Connections in use.", connections),
        Metric("fetcher_retries_total", "counter", "Failed attempts that were retried.", retries),
        Metric(
            "fetcher_banned_mirrors",
            "gauge",
            "Mirrors that sent other bytes than the origin publishes.",
            len(account.banned),
        ),
    ]


def _ending(account: Account) -> list[Metric]:
    finished = account.finished
    cached, stale = (finished.cached, finished.stale) if finished else (None, None)
    return [
        Metric("fetcher_cached", "gauge", "1 if nothing had to be fetched; absent until the fetch is done.", cached),
        Metric("fetcher_stale", "gauge", "1 if the source did not answer whether there is a newer version.", stale),
    ]
