"""A progress bar on a terminal, with rate and time left; notable events scroll above it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.table import Column
from rich.text import Text

from fetcher.events import Copied, Event, Finished, LeaseWaiting, Subscriber, Warmed
from fetcher.telemetry.tally import Tally
from fetcher.telemetry.wording import notable, progress, waiting


class Now(ProgressColumn):
    """The present progress, computed each time the bar is drawn: the rate must sink also while no event arrives."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis"))
        self.tally = Tally(clock)
        self.wait: LeaseWaiting | None = None

    def render(self, task: Task) -> Text:
        return Text(waiting(self.wait) if self.wait else progress(self.tally))


@contextmanager
def bar(stream: TextIO) -> Iterator[Subscriber]:
    """Draw the bar until the block ends, then remove it and print the summary."""
    console = Console(file=stream, highlight=False)
    now = Now(clock=time.monotonic)
    with Progress(
        BarColumn(bar_width=30),
        now,
        console=console,
        refresh_per_second=8,
        transient=True,
        # stdout is for the result only: rich would otherwise route it through the console.
        redirect_stdout=False,
        redirect_stderr=False,
    ) as display:
        task, tally, finished = display.add_task("", total=None), now.tally, list[Event]()

        def subscriber(event: Event) -> None:
            tally.add(event)
            line = notable(event)
            if isinstance(event, Finished | Warmed | Copied):
                finished.append(event)
            elif line is not None:
                console.print(Text(line), soft_wrap=True)
            now.wait = event if isinstance(event, LeaseWaiting) else None
            display.update(task, total=tally.total or None, completed=tally.position)

        yield subscriber
    for event in finished:
        console.print(Text(notable(event) or ""), soft_wrap=True)
