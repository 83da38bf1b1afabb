"""One artifact into the root, or one damaged artifact made whole: the engine, with a source that serves what is wanted only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cluster.agent.deciding import spared
from cluster.agent.intent import Intent
from cluster.agent.scrubbing import Damage
from cluster.agent.states import HOLDER, Wanted
from fetcher import cache
from fetcher.engine import fetch_uncached
from fetcher.engine.request import recover_and_request
from fetcher.errors import DigestMismatch, OtherRevision
from fetcher.events import Subscriber
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.pinned import PinnedSource, pinned
from fetcher.steps import Step, no_step
from fetcher.uncancelled import run_uncancelled


@dataclass(frozen=True, slots=True)
class Means:
    """What every fetch of this agent has. Sizes in bytes, times in seconds, rates in bytes per second.

    `environ`: what sources see of the environment. `step` is called after each step of what changes the root.
    """

    root: Path
    environ: Mapping[str, str] = field(repr=False)
    memory_limit: int
    min_idle: float
    retry_for: float
    max_concurrency: int
    limit_rate: float | None
    step: Step = no_step


Joined = Callable[[Settings], Settings]
"""Adds the peers to the settings of a fetch."""


async def fetch(
    wanted: Wanted,
    intent: Intent,
    means: Means,
    ranks: Mapping[str, int],
    on_event: Subscriber,
    *,
    lies: bool,
    joined: Joined = lambda settings: settings,
) -> bool:
    """Fetch `wanted`, and return whether it was there already. `lies`: its revision lies there, but not surely all of it.

    Another revision that lies there stays readable until this one is complete. Raises FetchError, OtherRevision.
    """
    settings = joined(_settings(intent, means, ranks))
    if not lies or wanted.revision is None:
        settings = replace(settings, refresh="on-change")
    if spared(wanted):
        settings = replace(settings, pod_uid=HOLDER)  # from the moment on at which it is visible
    source = _source(wanted, intent, means, settings)
    request = await run_uncancelled(recover_and_request, intent.ref, settings)
    artifact = await fetch_uncached(request, on_event, source=source, step=means.step)
    if artifact.stale and source.problem is not None:
        raise source.problem
    if artifact.revision != wanted.revision:
        raise OtherRevision(f"what was fetched is at {artifact.revision} instead of {wanted.revision}; wait for the controller")
    return artifact.cached


async def repair(
    wanted: Wanted, intent: Intent, means: Means, ranks: Mapping[str, int], on_event: Subscriber, damage: Damage
) -> int:
    """Make the damaged artifact whole again, and return the bytes that were fetched. Raises FetchError; DigestMismatch if it
    is still damaged."""
    settings = _settings(intent, means, ranks)
    source = _source(replace(wanted, listing_digest=""), intent, means, settings)  # each damaged file is compared by itself
    try:
        report = await cache.repair(
            damage.entry, damage.report, settings, uri=intent.ref.uri, on_event=on_event, source=source, step=means.step
        )
    finally:
        await source.aclose()
    if report.bad:
        path, problem = report.bad[0]
        raise DigestMismatch(f"{path} {problem}, also after a repair; look at the disk", path=path)
    return report.fetched


def _settings(intent: Intent, means: Means, ranks: Mapping[str, int]) -> Settings:
    return Settings(
        cache_dir=means.root,
        require_digests=intent.require == "Digest",
        require_checksums=intent.require == "Checksum",
        memory_limit=means.memory_limit,
        min_idle=means.min_idle,
        retry_for=means.retry_for,
        lease_wait=means.retry_for,  # a pod may fetch the same for hours, and others wait
        max_concurrency=means.max_concurrency,
        limit_rate=means.limit_rate,
        eviction_ranks=ranks,
    )


def _source(wanted: Wanted, intent: Intent, means: Means, settings: Settings) -> PinnedSource:
    source = open_source(
        intent.ref, settings, means.environ, credentials=intent.access, pin=wanted.revision, reach=intent.reach
    )
    return pinned(source, intent.ref, wanted.revision, wanted.listing_digest)
