"""From a reference to a complete artifact: resolve → plan → transfer → verify → commit.

`fetch` is all that the command line and the Python interface call. A hit is answered here, before anything that speaks to a
network is even imported: a warm start costs tens of milliseconds.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.events import Event, Finished, Subscriber, silent
from fetcher.manifest import Manifest
from fetcher.settings import Settings
from fetcher.sources.addresses import hub_folder
from fetcher.sources.base import Source
from fetcher.store.layout import Root
from fetcher.store.placement import Placement, Step
from fetcher.store.selector import hit, placement_for, recover


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a fetch returns. Bytes of the whole artifact, of what came from the source, and of what was already here.

    `verified`: every file was compared with a published or pinned digest. `cached`: nothing had to be done. `stale`: the
    source could not be asked whether there is something newer.
    """

    path: Path
    cache_key: str
    uri: str
    revision: str | None
    files: int
    bytes: int
    bytes_fetched: int
    bytes_reused: int
    seconds: float
    verified: bool
    cached: bool
    stale: bool


def described(
    ref: ArtifactRef,
    manifest: Manifest,
    *,
    path: Path,
    fetched: int,
    seconds: float,
    cached: bool = False,
    stale: bool = False,
) -> Artifact:
    """The artifact of `manifest` at `path`, for those who asked for `ref`."""
    return Artifact(
        path=path,
        cache_key=ref.key,
        uri=redact(ref.uri),
        revision=manifest.revision,
        files=len(manifest.files),
        bytes=manifest.size,
        bytes_fetched=fetched,
        bytes_reused=max(0, manifest.size - fetched),
        seconds=round(seconds, 3),
        verified=manifest.verified,
        cached=cached,
        stale=stale,
    )


def placement_of(ref: ArtifactRef, settings: Settings) -> Placement:
    """Where `ref` goes. Raises UsageError, CannotWrite."""
    folder, revision = hub_folder(ref)
    return placement_for(ref, settings, repository=folder, revision=revision)


def lookup(ref: ArtifactRef, settings: Settings, on_event: Subscriber = silent) -> Artifact | None:
    """The artifact if it is complete here and answers the request; None otherwise. No network. Raises FetchError."""
    if settings.refresh != "if-not-present" or ref.uri.startswith("pvc://"):
        return None
    began = time.monotonic()
    recover(settings)
    placement = placement_of(ref, settings)
    manifest = hit(placement, ref, settings)
    if manifest is None:
        return None
    if settings.dest is None:
        Root(settings.cache_dir).touch_usage(ref.key)
    path = placement.location(manifest)
    artifact = described(ref, manifest, path=path, fetched=0, seconds=time.monotonic() - began, cached=True)
    on_event(_finished(artifact))
    return artifact


def _no_step(_: str) -> None:
    """Nobody watches the steps of the commit."""


async def fetch(
    ref: ArtifactRef,
    settings: Settings,
    on_event: Subscriber = silent,
    *,
    source: Source | None = None,
    step: Step = _no_step,
) -> Artifact:
    """Bring `ref` to where `settings` say. Raises FetchError; on cancellation staging is left resumable.

    `source` brings it in place of the one that its URI names, and is closed at the end. `step` is called with the name of
    each step of the commit when it is done; it may raise.
    """
    artifact = lookup(ref, settings, on_event)
    if artifact is None:
        artifact = await _fetch(ref, settings, on_event, source, step)
        on_event(_finished(artifact))
    return artifact


def _finished(artifact: Artifact) -> Finished:
    return Finished(
        path=str(artifact.path),
        revision=artifact.revision,
        files=artifact.files,
        bytes=artifact.bytes,
        bytes_fetched=artifact.bytes_fetched,
        bytes_reused=artifact.bytes_reused,
        seconds=artifact.seconds,
        cached=artifact.cached,
        verified=artifact.verified,
        stale=artifact.stale,
    )


def _on_this_loop(on_event: Subscriber) -> Subscriber:
    """Threads report too; subscribers are only ever called on the event loop."""
    import asyncio  # here, since a hit needs none

    loop, here = asyncio.get_running_loop(), threading.get_ident()

    def relay(event: Event) -> None:
        if threading.get_ident() == here:
            on_event(event)
        else:
            loop.call_soon_threadsafe(on_event, event)

    return relay


async def _fetch(ref: ArtifactRef, settings: Settings, on_event: Subscriber, source: Source | None, step: Step) -> Artifact:
    from fetcher.engine import pipeline, standing
    from fetcher.sources import open_source

    source = source or open_source(ref, settings)
    on_event = _on_this_loop(on_event)
    try:
        if source.capabilities.in_place:
            return await standing.check(ref, settings, source=source, on_event=on_event)
        placement = placement_of(ref, settings)
        return await pipeline.run(ref, settings, source=source, placement=placement, on_event=on_event, step=step)
    finally:
        await source.aclose()
