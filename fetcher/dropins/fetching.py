"""Several artifacts at once, within the memory and the connections of one; and how a drop-in's settings are found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
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
from fetcher.telemetry import subscribed

if TYPE_CHECKING:
    from fetcher.sources.base import Source
    from fetcher.store.placement import Step

OPTIONS: tuple[Option, ...] = (*FETCH, *METRICS, *ENDING, *(each for each in PLACE if each.name == "require_digests"))
"""What a drop-in takes from the fetcher's own variables; what goes where is the other system's to say."""
_AT_ONCE = 4
"""Artifacts fetched at a time: more would leave each too little memory for what a fast link brings."""

Through = Callable[[Subscriber], "tuple[Source, Step]"]
"""Makes what brings an artifact, and what is told of the steps of its commit."""


@dataclass(frozen=True, slots=True)
class Order:
    """One artifact and where it goes; `through` what, where that is not simply the source that its URI names."""

    ref: ArtifactRef
    settings: Settings
    through: Through | None = None


def options_of(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of `OPTIONS`. Raises ConfigurationError."""
    return values(OPTIONS, argparse.Namespace(**{option.name: None for option in OPTIONS}), environ)


def settings_for(directory: Path, found: Mapping[str, Any], environ: Mapping[str, str], *, among: int = 1) -> Settings:
    """Those for `directory`, one of `among` that are fetched at once."""
    made, among = settings_from({**found, "dest": directory}, environ), min(among, _AT_ONCE)
    return replace(
        made,
        memory_limit=max(LEAST_MEMORY, made.memory_limit // among),
        max_concurrency=max(1, made.max_concurrency // among),
        limit_rate=made.limit_rate / among if made.limit_rate else None,
    )


def fetched(orders: Sequence[Order], found: Mapping[str, Any], report: Report) -> list[engine.Artifact]:
    """The artifacts, in order; complete ones without an event loop. Raises FetchError: the others stay resumable."""
    with _told(orders, found) as subscribers:
        told = [report.counting(subscriber) for subscriber in _measured(subscribers, found, report)]
        requests = [engine.recovered(order.ref, order.settings) for order in orders]
        here = [engine.find_cached(request, tell) for request, tell in zip(requests, told, strict=True)]
        missing = [index for index, artifact in enumerate(here) if artifact is None]
        if missing:
            brought = run_interruptibly(_together([(requests[index], orders[index].through, told[index]) for index in missing]))
            for index, artifact in zip(missing, brought, strict=True):
                here[index] = artifact
    return [artifact for artifact in here if artifact is not None]


async def _together(missing: Sequence[tuple[engine.Request, Through | None, Subscriber]]) -> list[engine.Artifact]:
    import asyncio  # here, since cached artifacts need none

    from fetcher.engine.failure import one_error

    turns = asyncio.Semaphore(_AT_ONCE)

    async def bring(request: engine.Request, through: Through | None, on_event: Subscriber) -> engine.Artifact:
        async with turns:
            if through is None:
                return await engine.bring(request, on_event)
            source, step = through(on_event)
            return await engine.bring(request, on_event, source=source, step=step)

    with one_error():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bring(*each)) for each in missing]
    return [task.result() for task in tasks]


def _measured(subscribers: list[Subscriber], found: Mapping[str, Any], report: Report) -> list[Subscriber]:
    """With the metrics that the environment asks for, which are of one artifact."""
    if not wants_metrics(found) or not subscribers:
        return subscribers
    if len(subscribers) > 1:
        subscribers[0](Warned("Configuration", "metrics are of one artifact; of several at once there are none"))
        return subscribers
    from fetcher.cli.metrics import publish

    return [publish(found, report, subscribers[0])]


class _Labelled:
    """A log whose lines say what they are about."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream = stream
        self._label = label

    def write(self, text: str) -> int:
        return self._stream.write(f"{self._label}: {text}")

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def _told(orders: Sequence[Order], found: Mapping[str, Any]) -> Iterator[list[Subscriber]]:
    """One subscriber for each order. Several cannot share a bar, so they get log lines, each with its directory."""
    kind = found.get("progress", "auto")
    with ExitStack() as stack:
        if len(orders) == 1 or kind in ("json", "none"):
            yield [stack.enter_context(subscribed(kind, sys.stderr)) for _ in orders]
            return
        streams = [cast(TextIO, _Labelled(sys.stderr, str(order.settings.dest))) for order in orders]
        yield [stack.enter_context(subscribed("log", stream)) for stream in streams]
