"""The way in: an artifact that is already here, or a fetch.

A cached artifact is found before anything that speaks to a network is imported, so that a warm start costs tens of
milliseconds.
"""

from __future__ import annotations

import threading
import time

from fetcher.artifact import ArtifactRef
from fetcher.engine.request import Request, recovered
from fetcher.engine.result import Artifact, described, finished
from fetcher.events import Event, Subscriber, silent
from fetcher.settings import Settings
from fetcher.sources.base import Source
from fetcher.store.layout import Root
from fetcher.store.placement import Step
from fetcher.store.selector import matching_manifest


def find_cached(request: Request, on_event: Subscriber = silent) -> Artifact | None:
    """The artifact if it is complete here and answers the request, else None. Asks no network. Raises FetchError."""
    if request.settings.refresh != "if-not-present" or request.placement is None:
        return None
    began = time.monotonic()
    manifest = matching_manifest(request.placement, request.ref, request.settings)
    if manifest is None:
        return None
    if request.settings.dest is None:
        Root(request.settings.cache_dir).touch_usage(request.ref.key)
    path = request.placement.location(manifest)
    artifact = described(request.ref, manifest, path=path, fetched=0, seconds=time.monotonic() - began, cached=True)
    on_event(finished(artifact))
    return artifact


def _no_step(_: str) -> None:
    """Nobody watches the steps of the commit."""


async def bring(
    request: Request, on_event: Subscriber = silent, *, source: Source | None = None, step: Step = _no_step
) -> Artifact:
    """Fetch what `find_cached` did not find. Raises FetchError; on cancellation staging is left resumable.

    `source` brings it in place of the one that its URI names, and is closed at the end. `step` is called with the name of
    each step of the commit when it is done; it may raise.
    """
    from fetcher.engine import in_place_check, pipeline
    from fetcher.sources import open_source

    source = source or open_source(request.ref, request.settings)
    relay = _on_this_loop(on_event)
    try:
        if request.placement is None:
            artifact = await in_place_check.check(request.ref, request.settings, source=source, on_event=relay)
        else:
            artifact = await pipeline.run(request, source=source, on_event=relay, step=step)
    finally:
        await source.aclose()
    on_event(finished(artifact))
    return artifact


async def fetch(
    ref: ArtifactRef,
    settings: Settings,
    on_event: Subscriber = silent,
    *,
    source: Source | None = None,
    step: Step = _no_step,
) -> Artifact:
    """`ref`, found in the cache or fetched, at the place that `settings` say. Raises FetchError; see `bring`."""
    request = recovered(ref, settings)
    return find_cached(request, on_event) or await bring(request, on_event, source=source, step=step)


def _on_this_loop(on_event: Subscriber) -> Subscriber:
    """Threads report too; subscribers are only ever called on the event loop."""
    import asyncio  # here, since a cached artifact needs none

    loop, here = asyncio.get_running_loop(), threading.get_ident()

    def relay(event: Event) -> None:
        if threading.get_ident() == here:
            on_event(event)
        else:
            loop.call_soon_threadsafe(on_event, event)

    return relay
