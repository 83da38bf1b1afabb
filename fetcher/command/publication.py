"""Metrics of a command that has an end: over HTTP while it runs, and in a file that stays and says how it ended."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from fetcher.command.running import Report
from fetcher.events import Event, Listening, Subscriber, Warned
from fetcher.telemetry.account import Account
from fetcher.telemetry.exposition import Metric, labelled
from fetcher.telemetry.textfile import Textfile

EVERY = 5.0
"""Seconds between two writings. Collectors come every 15 to 60."""


def published(
    account: Account, metrics: Callable[[], list[Metric]], found: Mapping[str, Any], report: Report, on_event: Subscriber
) -> Subscriber:
    """A subscriber that keeps `account` and tells `on_event`; `metrics`, asked at any moment and by any thread, go where the
    options in `found` say, until `report` is told the end. Raises ConfigurationError."""
    told = with_labels(metrics, found)
    textfile = Textfile(found["metrics_file"], told) if "metrics_file" in found else None
    publication = _Publication(account, textfile, on_event)
    report.at_end.append(publication.end)
    publication.begin()
    if "metrics_port" in found:
        publication.listen(found.get("metrics_address"), found["metrics_port"], told)
    return publication


def with_labels(metrics: Callable[[], list[Metric]], found: Mapping[str, Any]) -> Callable[[], list[Metric]]:
    """`metrics`, each with the labels that were asked for."""
    labels = dict(found.get("metrics_label", ()))
    return lambda: labelled(metrics(), labels)


class _Publication:
    def __init__(self, account: Account, textfile: Textfile | None, on_event: Subscriber) -> None:
        self._account = account
        self._textfile = textfile
        self._on_event = on_event
        self._untold: deque[Warned] = deque()
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True, name="metrics")
        self._stack = ExitStack()

    def __call__(self, event: Event) -> None:
        self._account(event)
        while self._untold:  # said here, since a subscriber is called by one thread at a time
            self._on_event(self._untold.popleft())
        self._on_event(event)

    def begin(self) -> None:
        if self._textfile is not None:
            self._write(self._textfile)
            self._writer.start()

    def listen(self, address: str | None, port: int, metrics: Callable[[], list[Metric]]) -> None:
        from fetcher.telemetry.endpoint import Site, serving  # http.server takes as long as the rest of a hit

        site = Site(metrics, {})
        where = self._stack.enter_context(serving(address, port, site))
        self._on_event(Listening(where, site.paths))

    def end(self, outcome: Mapping[str, Any]) -> None:
        self._ended.set()
        self._stack.close()
        self._account.end(outcome["reason"], retryable=outcome["retryable"])
        if self._textfile is not None:
            with suppress(RuntimeError):  # a signal came before it was started
                self._writer.join(timeout=1.0)
            if not self._writer.is_alive():  # else its disk hangs
                self._textfile.write()

    def _write_now_and_then(self) -> None:
        while self._textfile is not None and not self._ended.wait(EVERY):
            self._write(self._textfile)

    def _write(self, textfile: Textfile) -> None:
        if (warning := textfile.write()) is not None:
            self._untold.append(warning)
