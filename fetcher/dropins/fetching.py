"""Fetch several artifacts concurrently, within the memory and the connections of one, and read the settings of a drop-in."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from fetcher import engine
from fetcher.artifact import ArtifactRef
from fetcher.cli.options import FETCH, PLACE, settings_from
from fetcher.cli.signals import run_interruptibly
from fetcher.command.common_options import ENDING, METRICS, wants_metrics
from fetcher.command.options import Option, values
from fetcher.command.running import Report
from fetcher.events import Subscriber, Warned
from fetcher.settings import LEAST_MEMORY, Settings
from fetcher.sources.access import Access
from fetcher.telemetry import subscribed
from fetcher.values import dataclass

if TYPE_CHECKING:
    from fetcher.sources.base import Source
    from fetcher.steps import Step

_REQUIRED = ("require_digests", "require_checksums")
OPTIONS: tuple[Option, ...] = (*FETCH, *METRICS, *ENDING, *(each for each in PLACE if each.name in _REQUIRED))
"""The fetcher's own variables that a drop-in accepts. The other system chooses sources and directories."""
_CONCURRENT = 4
"""Maximum artifacts fetched concurrently. With more, each gets too little memory for a fast link."""

Through = Callable[[Subscriber, Access | None], "tuple[Source, Step]"]
"""Creates the source of an artifact with its credentials, and the function that is called at each step of its commit."""


@dataclass(frozen=True, slots=True)
class Order:
    """One artifact to fetch. `settings` has its directory; `through` creates its source, unless its URI names the source.

    `credentials` finds those for the source that the URI names, and may block; None: those of the process.
    """

    ref: ArtifactRef
    settings: Settings
    through: Through | None = None
    credentials: Callable[[], Access | None] | None = None


def options_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `OPTIONS`. Raises ConfigurationError."""
    return values(OPTIONS, argparse.Namespace(**{option.name: None for option in OPTIONS}), environ)


def settings_for(directory: Path, options: Mapping[str, Any], environ: Mapping[str, str], *, among: int = 1) -> Settings:
    """Return the settings for `directory`, one of `among` that are fetched concurrently."""
    settings, among = settings_from({**options, "dest": directory}, environ), min(among, _CONCURRENT)
    return replace(
        settings,
        memory_limit=max(LEAST_MEMORY, settings.memory_limit // among),
        max_concurrency=max(1, settings.max_concurrency // among),
        limit_rate=settings.limit_rate / among if settings.limit_rate else None,
    )


def fetched(orders: Sequence[Order], options: Mapping[str, Any], report: Report) -> list[engine.Artifact]:
    """Fetch the artifacts and return them in order. Complete ones need no event loop.

    Raises FetchError; the other artifacts can be resumed.
    """
    with _subscribers(orders, options) as subscribers:
        on_events = [report.counting(subscriber) for subscriber in _measured(subscribers, options, report)]
        requests = [engine.recover_and_request(order.ref, order.settings) for order in orders]
        artifacts = [engine.find_cached(request, on_event) for request, on_event in zip(requests, on_events, strict=True)]
        missing = [index for index, artifact in enumerate(artifacts) if artifact is None]
        if missing:
            pending = [(requests[index], orders[index], on_events[index]) for index in missing]
            for index, artifact in zip(missing, run_interruptibly(_fetch_all(pending)), strict=True):
                artifacts[index] = artifact
    return [artifact for artifact in artifacts if artifact is not None]


async def _fetch_all(missing: Sequence[tuple[engine.Request, Order, Subscriber]]) -> list[engine.Artifact]:
    import asyncio  # not at the top: cached artifacts do not need it

    from fetcher.failure import one_error

    turns = asyncio.Semaphore(_CONCURRENT)

    async def bring(request: engine.Request, order: Order, on_event: Subscriber) -> engine.Artifact:
        async with turns:
            credentials = await _found(order)
            if order.through is None:
                return await engine.fetch_uncached(replace(request, credentials=credentials), on_event)
            source, step = order.through(on_event, credentials)
            return await engine.fetch_uncached(request, on_event, source=source, step=step)

    with one_error():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bring(*each)) for each in missing]
    return [task.result() for task in tasks]


async def _found(order: Order) -> Access | None:
    """The credentials for an artifact. Raises FetchError."""
    if order.credentials is None:
        return None
    from fetcher.sources.tokens import LONGEST, on_daemon_thread

    return await on_daemon_thread(order.credentials, what="the credentials", longest=LONGEST)


def _measured(subscribers: list[Subscriber], options: Mapping[str, Any], report: Report) -> list[Subscriber]:
    """Return `subscribers` with the metrics that the environment asks for. Metrics exist only for a single artifact."""
    if not wants_metrics(options) or not subscribers:
        return subscribers
    if len(subscribers) > 1:
        subscribers[0](Warned("Configuration", "no metrics are published: they need a fetch of one artifact"))
        return subscribers
    from fetcher.cli.metrics import publish

    return [publish(options, report, subscribers[0])]


class _Labelled:
    """A stream that writes `label` before each log line."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream = stream
        self._label = label

    def write(self, text: str) -> int:
        return self._stream.write(f"{self._label}: {text}")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _subscribers(orders: Sequence[Order], options: Mapping[str, Any]) -> Iterator[list[Subscriber]]:
    """Yield one subscriber for each order. Several cannot share a progress bar, so each writes log lines with its directory."""
    kind = options.get("progress", "auto")
    with ExitStack() as stack:
        if len(orders) == 1 or kind in ("json", "none"):
            yield [stack.enter_context(subscribed(kind, sys.stderr)) for _ in orders]
            return
        streams = [cast(TextIO, _Labelled(sys.stderr, str(order.settings.dest))) for order in orders]
        yield [stack.enter_context(subscribed("log", stream)) for stream in streams]
