"""`loader hold`: rounds of looking, and everybody who wants to know how they end."""

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
from loader.cli.metrics import hold_metrics
from loader.cli.options import threads_for
from loader.residency.holding import Hold, State

_INTERVAL = 10.0
"""Seconds. DAMON took 3 % in the first minute: what an engine finds missing after ten seconds it reads in moments."""


def hold(paths: Sequence[str], found: Mapping[str, Any], on_event: Subscriber) -> State:
    """Until a signal comes, which is the ordinary end once all was in memory; before, it is raised as Interrupted."""
    keeper = Hold(paths, threads=found.get("threads") or threads_for(paths[0]), on_event=on_event)
    announced = False
    with ExitStack() as stack:
        stack.callback(keeper.close)
        publish = _publishers(found, stack, keeper, on_event)
        try:
            while True:
                state = keeper.check()
                publish(state)
                if state.ready and not announced:
                    announced = True
                    print_result(f"ready: {size(state.total)} in memory, {size(state.locked)} of them locked")
                time.sleep(keeper.pause(found.get("interval", _INTERVAL)))
        except Interrupted:
            if not announced:
                raise
    return keeper.state


def _publishers(found: Mapping[str, Any], stack: ExitStack, keeper: Hold, on_event: Subscriber) -> Callable[[State], None]:
    """Whom to tell after each round. What a former process left says nothing any more, so it goes first."""
    ready_file: Path | None = found.get("ready_file")
    metrics_file: Path | None = found.get("metrics_file")
    for path in filter(None, (ready_file, metrics_file)):
        with storing("remove what an earlier hold left", str(path)):
            path.unlink(missing_ok=True)
        stack.callback(_forget, path)
    told = with_labels(lambda: hold_metrics(keeper.state), found)
    if "metrics_port" in found:
        site = Site(told, {"/ready": lambda: readiness(keeper.state)})
        where = stack.enter_context(serving(found.get("metrics_address"), found["metrics_port"], site))
        on_event(Listening(where, site.paths))
    textfile = Textfile(metrics_file, told) if metrics_file is not None else None

    def publish(state: State) -> None:
        if ready_file is not None:
            _show_ready(ready_file, ready=state.ready)
        if textfile is not None and (warning := textfile.write()) is not None:
            on_event(warning)

    return publish


def readiness(state: State) -> Answer:
    """For a readiness probe."""
    return Answer(200 if state.ready else 503, f"{share(state.resident, state.total)} of {size(state.total)} in memory")


def _show_ready(path: Path, *, ready: bool) -> None:
    """Raises StoreError: who waits for the file would wait for ever, or believe one that is no longer true."""
    with storing("write the ready file", str(path)):
        if not ready:
            path.unlink(missing_ok=True)
        elif not path.exists():
            write_whole(path, "ready\n")


def _forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
