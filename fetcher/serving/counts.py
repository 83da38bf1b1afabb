"""What a server counts, as metrics. No path, key or caller is a label."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal, get_args

from fetcher.telemetry.exposition import Metric, Sample

Cut = Literal["slow", "gone", "failed"]
"""A reader that is too slow, one that hung up, and a file that could not be read to its end."""


class Counts:
    """Counters and gauges of one server, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._cut: Counter[str] = Counter()
        self._bytes = 0
        self.connections = 0
        self.polls = 0
        self.uploads = 0

    def answered(self, status: int) -> None:
        with self._lock:
            self._statuses[status] += 1

    def sent(self, count: int) -> None:
        with self._lock:
            self._bytes += count

    def cut(self, why: Cut) -> None:
        with self._lock:
            self._cut[why] += 1

    def uploading(self, change: int) -> None:
        with self._lock:
            self.uploads += change

    def metrics(self) -> list[Metric]:
        with self._lock:
            statuses = [Sample(count, {"code": str(code)}) for code, count in sorted(self._statuses.items())]
            cut = [Sample(self._cut[why], {"reason": why}) for why in get_args(Cut)]
            return [
                Metric("fetcher_served_bytes_total", "counter", "Bytes of files sent to peers.", self._bytes),
                Metric("fetcher_served_requests_total", "counter", "Answers by HTTP status.", statuses),
                Metric("fetcher_served_cut_total", "counter", "Answers that ended early.", cut),
                Metric("fetcher_served_connections", "gauge", "Open connections.", self.connections),
                Metric("fetcher_served_polls", "gauge", "Peers that wait for changes.", self.polls),
                Metric("fetcher_served_uploads", "gauge", "Files that are being sent.", self.uploads),
            ]
