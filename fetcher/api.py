"""The Python interface, which owns the defaults: `fetch`, `fetch_async` for callers with an event loop, and `open_source`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from fetcher.artifact import ArtifactRef, Digest
from fetcher.engine import Artifact as Artifact
from fetcher.engine import fetch as _fetch
from fetcher.engine import fetch_uncached, find_cached, recover_and_request
from fetcher.errors import UsageError
from fetcher.events import Subscriber, silent
from fetcher.quantities import Amount
from fetcher.settings import (
    LEAST_MEMORY,
    MOST_CONNECTIONS,
    Dedupe,
    Layout,
    PageCache,
    Part,
    Refresh,
    Settings,
    Signer,
    default_cache_dir,
    hub_cache_dir,
    parse_mirror,
)
from fetcher.sources.access import Access

if TYPE_CHECKING:
    from fetcher.streaming.opened import OpenArtifact as OpenArtifact


class Options(TypedDict, total=False):
    """The optional settings of a fetch. Sizes in bytes, rates in bytes per second, times in seconds.

    `expect` maps paths to `sha256:HEX`. The last group are fields of `fetcher.settings.Settings`, which gives their defaults.
    """

    cache_dir: str | os.PathLike[str] | None
    dest: str | os.PathLike[str] | None
    revision: str | None
    include: Iterable[str]
    exclude: Iterable[str]
    expect: Mapping[str, str] | None

    expect_file: str | None
    signer: Signer | None
    shared_dest: bool
    layout: Layout
    refresh: Refresh
    require_digests: bool
    require_checksums: bool
    accept_unverified: bool
    hard_link: bool
    dedupe: Dedupe
    pvc_mounts: Mapping[str, Path]
    max_concurrency: int
    limit_rate: float | None
    memory_limit: int
    page_cache: PageCache
    timeout_stall: float
    retry_for: float
    mirrors: Iterable[str]
    mirror_secret_file: Path | None
    mirror_ca: Path | None
    mirror_cert: Path | None
    mirror_key: Path | None
    peers: Callable[[], Iterable[str]] | None
    node: str | None
    part: Part | None
    max_size: Amount | None
    min_free: Amount | None
    min_idle: float | None
    eviction_ranks: Mapping[str, int]
    hold: float | None
    pod_uid: str | None
    lease_wait: float | None
    lease_stale: float | None


async def fetch_async(
    uri: str, *, on_event: Subscriber = silent, credentials: Access | None = None, **options: Unpack[Options]
) -> Artifact:
    """Fetch `uri` into `cache_dir`/<cache key>, or into `dest`, verified and complete; return the artifact.

    `options` are described in `Options`. With `credentials` (`fetcher.sources.access`), neither environment nor files are
    searched for others. `on_event` is called on the event loop with each event of `fetcher.events`.
    Raises `fetcher.FetchError`.
    """
    return await _fetch(*_read(uri, options), on_event, credentials=credentials)


def fetch(
    uri: str, *, on_event: Subscriber = silent, credentials: Access | None = None, **options: Unpack[Options]
) -> Artifact:
    """Run `fetch_async` on a new event loop (uvloop) and return the artifact. Raises `fetcher.FetchError`."""
    _refuse_inside_a_loop()
    request = recover_and_request(*_read(uri, options), credentials)
    if (artifact := find_cached(request, on_event)) is not None:
        return artifact
    import asyncio  # late: a cached artifact needs no event loop

    from fetcher.transport.tls import TlsEventLoop

    with asyncio.Runner(loop_factory=TlsEventLoop) as runner:
        return runner.run(fetch_uncached(request, on_event))


def open_source(
    uri: str, *, on_event: Subscriber = silent, credentials: Access | None = None, **options: Unpack[Options]
) -> OpenArtifact:
    """Open `uri` at its source to read ranges of its files into memory; nothing is written to a disk.

    Of the `Options` it takes those that concern the source. `credentials` are as for `fetch_async`. `on_event` is called on
    another thread. Raises `fetcher.FetchError`.
    """
    from fetcher.streaming.opened import OpenArtifact  # late: a cached artifact needs no network

    if foreign := sorted(options.keys() - set(_OF_A_SOURCE)):
        raise UsageError(f"open_source takes no {foreign[0]}; it takes {', '.join(_OF_A_SOURCE)}")
    # Settings name a place. Nothing is written there, so none is looked for: a pod may have no HOME.
    return OpenArtifact(*_read(uri, {"cache_dir": os.curdir, **options}), credentials, on_event)


def _refuse_inside_a_loop() -> None:
    """Raise UsageError even if the artifact is cached: otherwise the mistake appears only when the cache is empty."""
    if "asyncio" not in sys.modules:
        return
    import asyncio

    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise UsageError("fetcher.fetch was called inside a running event loop; await fetcher.fetch_async instead")


def _read(uri: str, options: Options) -> tuple[ArtifactRef, Settings]:
    settings: dict[str, Any] = dict(options)
    cache_dir, dest, revision = (settings.pop(name, None) for name in ("cache_dir", "dest", "revision"))
    include, exclude = (settings.pop(name, ()) for name in ("include", "exclude"))
    expect: Mapping[str, str] = settings.pop("expect", None) or {}
    mirrors = settings.pop("mirrors", ())
    _refuse_empty(cache_dir=cache_dir, dest=dest, revision=revision)
    if isinstance(include, str) or isinstance(exclude, str):
        raise UsageError("include and exclude take a list of patterns, not a string; write ['*.safetensors']")
    if isinstance(mirrors, str):
        raise UsageError("mirrors takes a list of addresses, not a string; write ['http://node:8650']")
    root = Path(cache_dir or dest or _default_root(settings))
    try:
        result = Settings(
            cache_dir=root.absolute(),
            dest=Path(dest).absolute() if dest is not None else None,
            expect={path: Digest.parse(text) for path, text in expect.items()},
            mirrors=tuple(parse_mirror(each) for each in mirrors),
            **settings,
        )
    except TypeError as error:
        raise UsageError(f"unknown option: {error}") from error
    if dest is not None and any(settings.get(name) is not None for name in _OF_A_CACHE):
        raise UsageError(f"{', '.join(_OF_A_CACHE)} are for a cache; give cache_dir instead of dest, or leave them out")
    _refuse_nonsense(result)
    return ArtifactRef(uri, revision, tuple(include), tuple(exclude)), result


def _default_root(settings: Mapping[str, Any]) -> Path:
    hub = hub_cache_dir() if settings.get("layout") == "hf-cache" else None
    return hub or default_cache_dir()


def _refuse_empty(**values: str | os.PathLike[str] | None) -> None:
    for name, value in values.items():
        if value is not None and not os.fspath(value):
            raise UsageError(f"{name} is empty; give it a value or leave it out")


def _refuse_nonsense(result: Settings) -> None:
    """Check the values: the command line checks them as it parses text, a caller in Python can pass anything."""
    for name, choices in (("layout", Layout), ("refresh", Refresh), ("page_cache", PageCache), ("dedupe", Dedupe)):
        if getattr(result, name) not in get_args(choices):
            raise UsageError(f"{name} is {getattr(result, name)!r}; choose from {', '.join(get_args(choices))}")
    for name, (least, most) in _BOUNDS.items():
        value = getattr(result, name)
        if value is None and name in _UNLIMITED:
            continue
        kind = int if isinstance(least, int) else int | float
        if not isinstance(value, kind) or not least <= value <= most:
            raise UsageError(f"{name} is {value!r}; it must be a number from {least:,} to {most:,}")


_OF_A_SOURCE = (
    *("revision", "include", "exclude", "expect", "require_digests", "require_checksums"),
    *("max_concurrency", "timeout_stall", "retry_for"),
)
_OF_A_CACHE = ("max_size", "min_free", "min_idle", "eviction_ranks", "hold", "pod_uid")
_LONGEST = 1e9
"""Seconds, thirty years. Every wait is finite; an unlimited one is None, never infinity."""
_BOUNDS: dict[str, tuple[float, float]] = {
    "max_concurrency": (1, MOST_CONNECTIONS),
    "memory_limit": (LEAST_MEMORY, math.inf),
    "limit_rate": (1.0, math.inf),
    "timeout_stall": (0.001, _LONGEST),
    "retry_for": (0.0, _LONGEST),
    "min_idle": (0.0, _LONGEST),
    "hold": (0.0, _LONGEST),
    "lease_wait": (0.0, _LONGEST),
    "lease_stale": (0.001, _LONGEST),
}
"""Name → minimum and maximum; if the minimum is an int, the value must be an int."""
_UNLIMITED = ("limit_rate", "min_idle", "hold", "lease_wait", "lease_stale")
"""Settings that can be None, for no limit or the default."""
