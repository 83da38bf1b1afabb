"""Every knob, in one frozen value, and how its text is read from a flag or from the environment.

The public entry points own the defaults; inner functions take what they need as required keywords. A flag `--limit-rate`
is the field `limit_rate` and the variable `FETCHER_LIMIT_RATE`; a flag wins over the variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError

MiB = 1024 * 1024

Layout = Literal["flat", "hf-cache"]
Refresh = Literal["if-not-present", "on-change"]
PageCache = Literal["auto", "keep", "drop"]

MOST_CONNECTIONS = 1024
LEAST_MEMORY = 16 * MiB
"""Bytes. The smallest buffers of a connection take 832 KiB and each hash thread 2 MiB (`planning.memory`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to fetch and where to. Sizes in bytes, rates in bytes a second, times in seconds; None means no limit.

    Exactly one of `cache_dir` (a root holding one directory a cache key, or a Hub cache with layout `hf-cache`) and `dest`
    (the artifact's own directory) is used; `dest` wins.
    """

    cache_dir: Path
    dest: Path | None = None
    shared_dest: bool = False
    """Whether `dest` may hold other artifacts too: each has a manifest of its own, and none deletes what another lists."""
    layout: Layout = "flat"
    refresh: Refresh = "if-not-present"
    expect: Mapping[str, Digest] = field(default_factory=dict)
    require_digests: bool = False
    hard_link: bool = False
    pvc_mounts: Mapping[str, Path] = field(default_factory=dict)
    max_concurrency: int = 32
    limit_rate: float | None = None
    memory_limit: int = 256 * MiB
    page_cache: PageCache = "auto"
    timeout_stall: float = 30.0
    retry_for: float = 300.0
    lease_wait: float | None = None
    lease_stale: float | None = None
    """Seconds without a heartbeat after which an owner is replaced; None: 60 on a local filesystem, 180 on a network's."""


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CACHE_HOME/weightlift`, else `~/.cache/weightlift`. Raises ConfigurationError where there is no HOME."""
    base = environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base) / "weightlift"
    if home := environ.get("HOME"):
        return Path(home) / ".cache" / "weightlift"
    raise ConfigurationError("no --cache-dir, no FETCHER_CACHE_DIR and no HOME; say where to put the artifact")


def hub_cache_dir(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where huggingface_hub keeps its cache: the variables it reads, in its order; None where there is no HOME either."""
    if directory := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return _expanded(directory)
    if home := environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    if cache := environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None):
        return _expanded(cache) / "huggingface" / "hub"
    return None


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))


def parse_expect(text: str) -> tuple[str, Digest]:
    """`PATH=sha256:HEX` → its two parts. Raises ConfigurationError."""
    path, separator, digest = text.rpartition("=")
    if not separator or not path:
        raise ConfigurationError(f"not PATH=sha256:HEX: {text!r}")
    return path, Digest.parse(digest)


def parse_mount(text: str) -> tuple[str, Path]:
    """`CLAIM=DIR` → its two parts. Raises ConfigurationError."""
    claim, separator, directory = text.partition("=")
    if not separator or not claim or not directory:
        raise ConfigurationError(f"not CLAIM=DIR: {text!r}")
    return claim, Path(directory)
