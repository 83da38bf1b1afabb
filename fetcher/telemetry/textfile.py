"""Metrics in a file for node_exporter's textfile collector, which sees also commands that end between two scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fetcher.errors import from_os_error
from fetcher.events import Warned
from fetcher.filesystem import write_whole
from fetcher.telemetry.exposition import Metric, exposition


class Textfile:
    """The file at `path`, replaced atomically by each `write`. Only one thread at a time may call it."""

    def __init__(self, path: Path, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._path = path
        self._metrics = metrics
        self._reported: set[str] = set()

    def write(self) -> Warned | None:
        """Write the file. Return a warning for a new problem; metrics are no reason to stop the command."""
        try:
            write_whole(self._path, exposition(self._metrics()))
        except OSError as error:
            problem = from_os_error(error, doing="write the metrics", path=str(self._path))
            if problem.message not in self._reported:
                self._reported.add(problem.message)
                return Warned(problem.reason, problem.message)
        return None
