"""A bar on a terminal, with rate and time left; notable events scroll by above it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from fetcher.events import Event, Finished, LeaseWaiting, Subscriber
from fetcher.telemetry.tally import Tally
from fetcher.telemetry.wording import notable, progress, waiting


@contextmanager
def bar(stream: TextIO) -> Iterator[Subscriber]:
    """Drawn until the block ends, then removed: the summary and any error stand below what scrolled by."""
    console = Console(file=stream, highlight=False)
    columns = (BarColumn(bar_width=30), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, refresh_per_second=8) as display:
        task = display.add_task("starting", total=None)
        tally, finished = Tally(time.monotonic), list[Finished]()

        def subscriber(event: Event) -> None:
            tally.add(event)
            line = notable(event)
            if isinstance(event, Finished):
                finished.append(event)
            elif line is not None:
                console.print(Text(line))
            describe(event)

        def describe(event: Event) -> None:
            if isinstance(event, LeaseWaiting):
                display.update(task, description=waiting(event))
            elif tally.total:
                display.update(task, description=progress(tally), total=tally.total, completed=tally.done)
            else:
                display.update(task, description=tally.phase)

        yield subscriber
    for event in finished:
        console.print(Text(notable(event) or ""))
