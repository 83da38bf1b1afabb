"""The metrics of `fetcher verify`, published while it runs and kept in a file after it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fetcher.command.publication import published
from fetcher.command.running import Report
from fetcher.events import Event, FileRepaired, Subscriber, Verified
from fetcher.telemetry.account import Account
from fetcher.telemetry.exposition import Metric
from fetcher.telemetry.tally import Phase

PHASES: tuple[Phase, ...] = ("starting", "verifying", "resolving", "waiting", "fetching", "done")


class VerifyAccount(Account):
    """A verification in numbers. Artifacts count once they are verified and, if asked for, repaired."""

    def __init__(self) -> None:
        super().__init__("fetcher", PHASES, clock=time.monotonic, now=time.time)
        self.artifacts = self.chunks = self.bytes = self.bad = self.repaired = 0

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        match event:
            case Verified():
                self.artifacts += 1
                self.chunks += event.chunks
                self.bytes += event.bytes
                self.bad += event.bad
            case FileRepaired():
                self.repaired += 1


def publish(options: Mapping[str, Any], report: Report, on_event: Subscriber) -> Subscriber:
    """Publish the metrics of a verification, as `published` does for any command."""
    account = VerifyAccount()
    return published(account, lambda: _metrics(account), options, report, on_event)


def all_verify_metrics() -> list[Metric]:
    """Return every metric of a verification that has ended, for the reference and the tests."""
    account = VerifyAccount()
    account.end("Completed", retryable=False)
    return _metrics(account)


def _metrics(account: VerifyAccount) -> list[Metric]:
    return [
        *account.metrics(),
        Metric("fetcher_artifacts", "gauge", "Artifacts verified so far.", account.artifacts),
        Metric("fetcher_compared_chunks_total", "counter", "Chunks compared with the manifest.", account.chunks),
        Metric("fetcher_compared_bytes_total", "counter", "Bytes of these chunks.", account.bytes),
        Metric("fetcher_bad_files", "gauge", "Files that are damaged, and were not repaired.", account.bad),
        Metric("fetcher_repaired_files_total", "counter", "Files that were repaired.", account.repaired),
        Metric("fetcher_received_bytes_total", "counter", "Bytes received from the source.", account.received),
    ]
