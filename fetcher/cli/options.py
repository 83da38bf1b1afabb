"""Every option of `fetcher`, once, and the settings they make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fetcher.command.common_options import JSON
from fetcher.command.options import Option
from fetcher.errors import ConfigurationError
from fetcher.quantities import parse_duration, parse_number, parse_rate, parse_seconds, parse_size
from fetcher.settings import (
    LEAST_MEMORY,
    MOST_CONNECTIONS,
    Settings,
    default_cache_dir,
    hub_cache_dir,
    parse_expect,
    parse_mount,
)


def _memory(text: str) -> int:
    if (limit := parse_size(text)) < LEAST_MEMORY:
        raise ConfigurationError(f"{text} is too little memory for buffers; give 16Mi or more")
    return limit


SELECTION = (
    Option("revision", "branch, tag, commit or refs/pr/N of a Hub repository", metavar="REV"),
    Option("include", "fetch only files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
    Option("exclude", "leave out files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
)
ROOT = (
    Option("cache_dir", "root of the cache; the artifact goes to DIR/<cache-key>", read=Path, metavar="DIR"),
    JSON,
)
FULL = Option("full", "recompute the published digests too", switch=True)
PLACE = (
    Option("dest", "put the artifact into DIR itself, which may be a mount point", read=Path, metavar="DIR"),
    Option("layout", "flat files, or the Hub's cache layout under --cache-dir", choices=("flat", "hf-cache")),
    Option(
        "expect",
        "the digest a file must have; may be repeated",
        read=parse_expect,
        metavar="PATH=sha256:HEX",
        repeated=True,
    ),
    Option("require_digests", "refuse files for which neither source nor --expect gives a digest", switch=True),
    Option("pvc_mount", "where the claim of pvc:// is mounted; may be repeated", parse_mount, "CLAIM=DIR", repeated=True),
)
FETCH = (
    Option(
        "refresh",
        "take what is here, or ask the source whether there is something newer",
        choices=("if-not-present", "on-change"),
    ),
    Option("hard_link", "link files of a local source instead of copying: a later edit changes both", switch=True),
    Option(
        "max_concurrency",
        "connections at most; how many are worth it is found out (default 32)",
        partial(parse_number, 1, MOST_CONNECTIONS),
        "N",
    ),
    Option("limit_rate", "bytes a second over all connections, such as 200M; 0 for no limit", parse_rate, "RATE"),
    Option("memory_limit", "memory for all buffers together (default 256Mi)", _memory, "SIZE"),
    Option(
        "page_cache",
        "keep what was written in the page cache, or drop it as it is synced",
        choices=("auto", "keep", "drop"),
    ),
    Option("timeout_stall", "give up a connection on which nothing came for so long (default 30s)", parse_seconds, "SECONDS"),
    Option("retry_for", "give up after so long without any progress (default 5m)", parse_duration, "DURATION"),
    Option("lease_wait", "wait at most so long for another process that fetches the same", parse_duration, "DURATION"),
    Option(
        "lease_stale",
        "take over from an owner without a heartbeat for this long (default 60s, 180s on a network filesystem)",
        parse_seconds,
        "DURATION",
    ),
)
WARM = Option("warm", "keep in memory what was written, and bring in what is not, as `loader warm` does", switch=True)


def settings_from(found: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings that options and environment make. Raises ConfigurationError."""
    known = {
        option.name: found[option.name]
        for option in (*PLACE, *FETCH)
        if option.name in found and option.name not in ("expect", "pvc_mount")
    }
    layout = found.get("layout", "flat")
    cache_dir = found.get("cache_dir") or (hub_cache_dir(environ) if layout == "hf-cache" else None)
    if cache_dir is None:
        # --dest stages inside itself: no cache root is needed, nor a HOME.
        cache_dir = found["dest"] if "dest" in found else default_cache_dir(environ)
    if "dest" in known:
        known["dest"] = known["dest"].absolute()
    return Settings(
        cache_dir=cache_dir.absolute(),
        expect=dict(found.get("expect", ())),
        pvc_mounts=dict(found.get("pvc_mount", ())),
        **known,
    )
