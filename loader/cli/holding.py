"""`loader hold`: check the files at an interval, and publish the state after each check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from fetcher.command.publication import with_labels
from fetcher.command.results import print_result
from fetcher.command.signals import Interrupted
from fetcher.events import Listening, Subscriber
from fetcher.filesystem import storing, write_whole
from fetcher.quantities import size
from fetcher.telemetry.endpoint import Answer, Site, serving
from fetcher.telemetry.textfile import Textfile
from fetcher.telemetry.wording import share
from fetcher.usage import note_use
from loader.cli.metrics import hold_metrics
from loader.cli.options import threads_for
from loader.residency.holding import Hold, State

_INTERVAL = 10.0
"""Seconds. DAMON took 3 % in the first minute. An engine reads what is lost in ten seconds within moments."""


def hold(paths: Sequence[str], settings: Mapping[str, Any], on_event: Subscriber) -> State:
    """Hold the files until a signal comes, and return the last state.

    A signal before everything was in memory once is raised as Interrupted.
    """
    note_use(*paths)
    keeper = Hold(paths, threads=settings.get("threads") or threads_for(paths[0]), on_event=on_event)
    announced = False
    with ExitStack() as stack:
        stack.callback(keeper.close)
        publish = _publishers(settings, stack, keeper, on_event)
        try:
            while True:
                state = keeper.check()
                publish(state)
                if state.ready and not announced:
                    announced = True
                    print_result(f"ready: {size(state.total)} in memory, {size(state.locked)} locked")
                time.sleep(keeper.pause(settings.get("interval", _INTERVAL)))
        except Interrupted:
            if not announced:
                raise
    return keeper.state


def _publishers(settings: Mapping[str, Any], stack: ExitStack, keeper: Hold, on_event: Subscriber) -> Callable[[State], None]:
    """Return the function that publishes the state after each check. Outdated files of an earlier process are removed first."""
    ready_file: Path | None = settings.get("ready_file")
    metrics_file: Path | None = settings.get("metrics_file")
    for path in filter(None, (ready_file, metrics_file)):
        with storing("remove the file of an earlier hold", str(path)):
            path.unlink(missing_ok=True)
        stack.callback(_remove, path)
    metrics = with_labels(lambda: hold_metrics(keeper.state), settings)
    if "metrics_port" in settings:
        site = Site(metrics, {"/ready": lambda: readiness(keeper.state)})
        where = stack.enter_context(serving(settings.get("metrics_address"), settings["metrics_port"], site))
        on_event(Listening(where, site.paths))
    textfile = Textfile(metrics_file, metrics) if metrics_file is not None else None

    def publish(state: State) -> None:
        if ready_file is not None:
            _update(ready_file, ready=state.ready)
        if textfile is not None and (warning := textfile.write()) is not None:
            on_event(warning)

    return publish


def readiness(state: State) -> Answer:
    """Return the answer to a readiness probe: 200 when everything is in memory, else 503."""
    return Answer(200 if state.ready else 503, f"{share(state.resident, state.total)} of {size(state.total)} in memory")


def _update(path: Path, *, ready: bool) -> None:
    """Create or remove the ready file.

    Raises StoreError: without it a watcher of the file would wait for ever, or trust an outdated file.
    """
    with storing("write the ready file", str(path)):
        if not ready:
            path.unlink(missing_ok=True)
        elif not path.exists():
            write_whole(path, "ready\n")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
