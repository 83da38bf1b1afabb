"""The entry point: return a cached artifact, or fetch it.

The cache is checked before any network module is imported, so a warm start takes tens of milliseconds.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fetcher.artifact import ArtifactRef
from fetcher.engine.hits import find_hit
from fetcher.engine.request import Request, recover_and_request
from fetcher.engine.result import Artifact, described, finished
from fetcher.events import Event, Subscriber, silent
from fetcher.settings import Settings
from fetcher.sources.access import Access
from fetcher.sources.base import Source
from fetcher.steps import Step, no_step

if TYPE_CHECKING:
    from fetcher.engine.adopting import Adoption


def find_cached(request: Request, on_event: Subscriber = silent) -> Artifact | None:
    """Return the artifact if a complete copy satisfies the request, else None. Uses no network. Raises FetchError."""
    if request.settings.refresh != "if-not-present" or request.placement is None:
        return None
    began = time.monotonic()
    hit = find_hit(request.placement, request.ref, request.settings)
    if hit is None:
        return None
    artifact = described(
        request.ref,
        hit.manifest,
        path=request.placement.location(hit.manifest),
        fetched={},
        seconds=time.monotonic() - began,
        cached=True,
        use_recorded=hit.recorded,
    )
    on_event(finished(artifact))
    return artifact


async def fetch_uncached(
    request: Request,
    on_event: Subscriber = silent,
    *,
    source: Source | None = None,
    adoption: Adoption | None = None,
    step: Step = no_step,
) -> Artifact:
    """Fetch an artifact that is not cached. Raises FetchError. After a cancellation the next fetch resumes.

    `source` replaces the source that the URI names, and is closed at the end. Files of `adoption` are not fetched.
    `step` is called with the name of each step of the commit after that step; it can raise.
    """
    from fetcher.engine.unpacking import unpacking
    from fetcher.sources import open_source

    source = source or open_source(request.ref, request.settings, credentials=request.credentials)
    relay = _on_this_loop(on_event)
    source, settings, step = unpacking(source, request.ref, request.settings, relay, step)
    request = replace(request, settings=settings)
    try:
        if request.placement is None:
            from fetcher.engine import in_place_check

            artifact = await in_place_check.check(request.ref, request.settings, source=source, on_event=relay)
        elif request.settings.part is not None:
            from fetcher.engine import parts

            artifact = await parts.run(request, request.settings.part, source=source, on_event=relay, step=step)
        else:
            from fetcher.engine import pipeline

            artifact = await pipeline.run(request, source=source, adoption=adoption, on_event=relay, step=step)
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
    credentials: Access | None = None,
    step: Step = no_step,
) -> Artifact:
    """Return the artifact of `ref`, cached or fetched to where `settings` say. Raises FetchError; see `fetch_uncached`."""
    request = recover_and_request(ref, settings, credentials)
    return find_cached(request, on_event) or await fetch_uncached(request, on_event, source=source, step=step)


def _on_this_loop(on_event: Subscriber) -> Subscriber:
    """Return a subscriber for any thread that calls `on_event` on this event loop only."""
    import asyncio  # imported late: a cached artifact does not need it

    loop, thread = asyncio.get_running_loop(), threading.get_ident()

    def relay(event: Event) -> None:
        if threading.get_ident() == thread:
            on_event(event)
        else:
            loop.call_soon_threadsafe(on_event, event)

    return relay
