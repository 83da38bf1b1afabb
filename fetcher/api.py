"""The Python interface: `fetch`, and `fetch_async` for those who have an event loop. Both own the defaults."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine import Artifact as Artifact
from fetcher.engine import fetch as _fetch
from fetcher.engine import lookup
from fetcher.errors import UsageError
from fetcher.events import Subscriber, silent
from fetcher.settings import Settings, default_cache_dir


async def fetch_async(
    uri: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    dest: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    expect: Mapping[str, str] | None = None,
    on_event: Subscriber = silent,
    **settings: Any,
) -> Artifact:
    """Bring `uri` to `cache_dir`/<cache key>, or to `dest`, verified and complete.

    `expect` maps paths to `sha256:HEX`. `settings` are the other fields of `fetcher.settings.Settings` (sizes in bytes, times
    in seconds). `on_event` is called on the event loop with `fetcher.events`. Raises `fetcher.FetchError`.
    """
    ref, made = _request(uri, cache_dir, dest, revision, include, exclude, expect, settings)
    return await _fetch(ref, made, on_event)


def fetch(
    uri: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    dest: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    expect: Mapping[str, str] | None = None,
    on_event: Subscriber = silent,
    **settings: Any,
) -> Artifact:
    """`fetch_async` on an event loop of its own (uvloop)."""
    ref, made = _request(uri, cache_dir, dest, revision, include, exclude, expect, settings)
    if made.refresh == "if-not-present" and (artifact := lookup(ref, made)) is not None:
        return artifact
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_fetch(ref, made, on_event))
    raise UsageError("fetcher.fetch was called inside a running event loop; await fetcher.fetch_async instead")


def _request(
    uri: str,
    cache_dir: str | os.PathLike[str] | None,
    dest: str | os.PathLike[str] | None,
    revision: str | None,
    include: Iterable[str],
    exclude: Iterable[str],
    expect: Mapping[str, str] | None,
    settings: Mapping[str, Any],
) -> tuple[ArtifactRef, Settings]:
    root = Path(cache_dir) if cache_dir is not None else Path(dest) if dest is not None else default_cache_dir()
    try:
        made = Settings(
            cache_dir=root.absolute(),
            dest=Path(dest).absolute() if dest is not None else None,
            expect={path: Digest.parse(text) for path, text in (expect or {}).items()},
            **settings,
        )
    except TypeError as error:
        raise UsageError(f"an unknown setting: {error}") from error
    return ArtifactRef(uri, revision, tuple(include), tuple(exclude)), made
