"""The limits of a cache root, `<root>/.fetcher/root.json`. `fetcher init` writes them, every fetch obeys them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, NewerFormat, UsageError
from fetcher.filesystem import file_mode, network_filesystem
from fetcher.planning.eviction import Bounds
from fetcher.quantities import Amount, parse_amount, parse_duration
from fetcher.records import check_format, unknown_fields
from fetcher.store.beneath import make_directories, read_beneath, replace_file
from fetcher.store.layout import PRIVATE
from fetcher.values import dataclass
from fetcher.version import VERSION

FORMAT_VERSION = 1
MIN_IDLE = 3600.0
"""Seconds. The default of `--min-idle`: an engine that crashed is restarted well within an hour, and an hour covers 894 GiB
read at 0.25 GiB/s. It is no shorter than the grace period of replaced versions, for readers on other NFS clients."""
_LARGEST = 65536


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """`max_size`: the most that the root may occupy. `min_free`: what stays free on its filesystem. `min_idle`: seconds
    without use before an artifact may be evicted. None: not set."""

    max_size: Amount | None = None
    min_free: Amount | None = None
    min_idle: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether the root has a limit. Without one, a fetch deletes nothing."""
        return self.max_size is not None or self.min_free is not None

    def bounds(self, root: Path) -> Bounds:
        """Return the limits in bytes, on the filesystem of `root`. Raises OSError."""
        status = os.statvfs(root)
        total = status.f_blocks * status.f_frsize
        return Bounds(
            max_size=self.max_size.of(total) if self.max_size is not None else None,
            min_free=self.min_free.of(total) if self.min_free is not None else None,
        )


def read_limits(root: Path) -> CacheLimits:
    """Return the limits of `root`; none if it was not initialized. Raises ConfigurationError, NewerFormat, OSError."""
    path = _path(root)
    try:
        text = read_beneath(root, path, limit=_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return CacheLimits()
    try:
        document = json.loads(text)
        check_format(document, newest=FORMAT_VERSION, what=str(path))
        return CacheLimits(
            max_size=_amount(document.get("max_size")),
            min_free=_amount(document.get("min_free")),
            min_idle=None if document.get("min_idle") is None else parse_duration(str(document["min_idle"])),
        )
    except NewerFormat:
        raise
    except (ValueError, AttributeError, RecursionError, ConfigurationError) as error:
        raise ConfigurationError(f"{path} is damaged; write it again with fetcher init", path=str(path)) from error


def write_limits(root: Path, limits: CacheLimits) -> None:
    """Write the limits of `root`, and keep fields of a later version. Raises UsageError, NewerFormat, OSError."""
    refuse_unenforceable(root, limits)
    path = _path(root)
    make_directories(root, path.parent)
    document = {
        "format_version": FORMAT_VERSION,
        "version": VERSION,
        "max_size": None if limits.max_size is None else str(limits.max_size),
        "min_free": None if limits.min_free is None else str(limits.min_free),
        "min_idle": limits.min_idle,
        **_unknown(root, path),
    }
    data = json.dumps(document, indent=1).encode() + b"\n"
    replace_file(root, path, data, mode=file_mode(path.parent))


def refuse_unenforceable(root: Path, limits: CacheLimits) -> None:
    """Raise UsageError for limits that the filesystem of `root` does not allow. Raises OSError."""
    network = network_filesystem(root)
    if network is None:
        return
    for amount, flag in ((limits.max_size, "--max-size"), (limits.min_free, "--min-free")):
        if amount is not None and amount.percent:
            raise UsageError(f"{flag} {amount}: {root} is on {network}, whose size others change; give {flag} in bytes")
    if limits.bounded:
        refuse_without_idle_time(root, limits.min_idle)


def refuse_without_idle_time(root: Path, min_idle: float | None) -> None:
    """Raise UsageError if eviction from `root` needs an explicit idle time, and there is none. Raises OSError."""
    if min_idle is None and (network := network_filesystem(root)) is not None:
        raise UsageError(
            f"{root} is on {network}, which does not tell what other nodes read; say with --min-idle how long an artifact must "
            "be unused before it may be evicted"
        )


def refuse_looser(own: CacheLimits, asked: CacheLimits, root: Path) -> None:
    """Raise UsageError if a flag would allow more than the root's own limit. Raises OSError."""
    mine, flags = own.bounds(root), asked.bounds(root)
    if mine.max_size is not None and flags.max_size is not None and flags.max_size > mine.max_size:
        raise UsageError(
            f"--max-size {_shown(asked.max_size)} is above the limit of {root} itself, {_shown(own.max_size)}; "
            "change that with fetcher init"
        )
    if mine.min_free is not None and flags.min_free is not None and flags.min_free < mine.min_free:
        raise UsageError(
            f"--min-free {_shown(asked.min_free)} is below the limit of {root} itself, {_shown(own.min_free)}; "
            "change that with fetcher init"
        )


def _shown(amount: Amount | None) -> str:
    return "none" if amount is None else amount.shown()


def _path(root: Path) -> Path:
    return root / PRIVATE / "root.json"


def _amount(value: object) -> Amount | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a size")
    return parse_amount(value)


def _unknown(root: Path, path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(read_beneath(root, path, limit=_LARGEST))
        check_format(document, newest=FORMAT_VERSION, what=str(path))
    except NewerFormat:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return unknown_fields(document, ("format_version", "version", "max_size", "min_free", "min_idle"))
