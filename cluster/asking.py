"""Asks a source what a fetch of it would get, without a store: within a time, and as whom the caller says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.engine import preview
from fetcher.engine.preview import Answer
from fetcher.errors import Unreachable
from fetcher.reach import Reach
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.access import Access

_LONGEST = 300.0
"""Seconds for one source: a listing of 100,000 files takes a minute."""
_CONNECTIONS = 4


async def listed(
    ref: ArtifactRef,
    access: Access,
    environ: Mapping[str, str],
    *,
    retry_for: float,
    reach: Reach,
    require: str = "None",
    pin: str | None = None,
) -> Answer:
    """Return what the source of `ref` lists to `access`. `environ`: what the source sees of the environment.

    `reach`: where its connections may lead. `require`: None, Checksum or Digest, of each file. `pin`: the revision that is
    asked about. Raises FetchError.
    """
    settings = Settings(
        cache_dir=Path("/nowhere"),
        require_digests=require == "Digest",
        require_checksums=require == "Checksum",
        max_concurrency=_CONNECTIONS,
        retry_for=retry_for,
    )
    source = open_source(ref, settings, environ, credentials=access, pin=pin, reach=reach)
    try:
        async with asyncio.timeout(_LONGEST):
            return await preview.answered(source, ref, settings)
    except TimeoutError:
        raise Unreachable(f"the source did not list its files within {_LONGEST:.0f} s; it is asked again") from None
