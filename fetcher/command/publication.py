"""Metrics of a command: over HTTP while it runs, and in a file that stays and says how the command ended."""

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
"""Seconds between two writes. Collectors scrape every 15 to 60."""


def published(
    account: Account, metrics: Callable[[], list[Metric]], options: Mapping[str, Any], report: Report, on_event: Subscriber
) -> Subscriber:
    """Publish `metrics` to the file and port in `options` until the command ends; return the subscriber that feeds them.

    The subscriber updates `account` and passes each event on to `on_event`. `metrics` is called by any thread at any time.
    Raises ConfigurationError when the port cannot be opened.
    """
    labelled_metrics = with_labels(metrics, options)
    textfile = Textfile(options["metrics_file"], labelled_metrics) if "metrics_file" in options else None
    publication = _Publication(account, textfile, on_event)
    report.at_end.append(publication.end)
    publication.begin()
    if "metrics_port" in options:
        publication.listen(options.get("metrics_address"), options["metrics_port"], labelled_metrics)
    return publication


def with_labels(metrics: Callable[[], list[Metric]], options: Mapping[str, Any]) -> Callable[[], list[Metric]]:
    """Return `metrics` with the labels of --metrics-label added to each."""
    labels = dict(options.get("metrics_label", ()))
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
        while self._untold:  # on this thread, since a subscriber is called by one thread at a time
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
            with suppress(RuntimeError):  # a signal arrived before the thread was started
                self._writer.join(timeout=1.0)
            if not self._writer.is_alive():  # otherwise its disk hangs
                self._textfile.write()

    def _write_now_and_then(self) -> None:
        while self._textfile is not None and not self._ended.wait(EVERY):
            self._write(self._textfile)

    def _write(self, textfile: Textfile) -> None:
        if (warning := textfile.write()) is not None:
            self._untold.append(warning)
