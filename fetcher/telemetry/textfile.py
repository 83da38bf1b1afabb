"""Metrics in a file, for node_exporter's textfile collector: the way to be seen of a command that ends between two scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from fetcher.errors import from_os_error
from fetcher.events import Warned
from fetcher.filesystem import write_whole
from fetcher.telemetry.exposition import Metric, exposition


class Textfile:
    """Replaced as one piece at each `write`, by one thread at a time."""

    def __init__(self, path: Path, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._path = path
        self._metrics = metrics
        self._told: set[str] = set()

    def write(self) -> Warned | None:
        """What is in the way, if that was not said before: numbers for a graph are no reason to end what they count."""
        try:
            write_whole(self._path, exposition(self._metrics()))
        except OSError as error:
            problem = from_os_error(error, doing="write the metrics", path=str(self._path))
            if problem.message not in self._told:
                self._told.add(problem.message)
                return Warned(problem.reason, problem.message)
        return None
