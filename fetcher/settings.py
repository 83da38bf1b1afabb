"""Every knob, in one frozen value, and how its text is read from a flag or from the environment.

The public entry points own the defaults; inner functions take what they need as required keywords. A flag `--limit-rate`
is the field `limit_rate` and the variable `FETCHER_LIMIT_RATE`; a flag wins over the variable.
"""

from __future__ import annotations

import os
import re
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
    """Seconds without a sign of life after which an owner is replaced; None: 60 on a local filesystem, 180 on a network's."""


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


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """`256Mi`, `1.5GiB`, `500MB`, `4096` → bytes, as Kubernetes writes quantities. Raises ConfigurationError."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if not match or match[2].lower() not in _UNITS:
        raise ConfigurationError(f"not a size: {text!r}; write 256Mi, 1.5Gi or 500M")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_rate(text: str) -> float | None:
    """`100M`, `100MB/s`, `1Gi` → bytes a second; `0` and `none` → no limit. Raises ConfigurationError."""
    if text.strip().lower() in ("", "none", "unlimited"):
        return None
    return float(parse_size(re.sub(r"/s(ec)?\s*$", "", text.strip(), flags=re.IGNORECASE))) or None


def parse_duration(text: str) -> float:
    """`30`, `30s`, `5m`, `1h30m`, `250ms` → seconds. Raises ConfigurationError."""
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        return float(text)
    parts = re.findall(r"([0-9]{1,12}(?:\.[0-9]+)?)(ms|[smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(f"not a duration: {text!r}; write 30s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


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
