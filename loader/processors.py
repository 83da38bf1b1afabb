"""How many threads are worth reading with: the cgroup's quota counts, not the machine's processors; and what is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from loader.filesystems import is_network
from loader.memory import cgroup_directories
from loader.mounts import parse_mounts

_LOCAL = 4
_NETWORK = 16
_MOST = 16
"""A processor copies 4 GiB/s out of the page cache, two copy 8; some more and the memory is the limit."""


def reading_threads(kind: str, root: Path = Path("/")) -> int:
    """For a filesystem of this kind. Four keep a local disk busy, for a request of 8 MiB is many in its queue: one thread
    brought 93 % of what four did. On a network each waits for its own answer; sixteen is a guess, not measured."""
    return _NETWORK if is_network(kind) else max(_LOCAL, min(processors(root), _MOST))


def processors(root: Path = Path("/")) -> int:
    """Whole processors that this process may use, at least 1. `root` is where /proc and /sys are."""
    return max(1, round(min([len(os.sched_getaffinity(0)), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    mounts = parse_mounts(_read(root / "proc/self/mountinfo"))
    for name in cgroup_directories(_read(root / "proc/self/cgroup"), mounts, "cpu"):
        directory = root / name.lstrip("/")
        limit, _, period = _read(directory / "cpu.max").partition(" ")
        if not period:
            limit, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if limit.isdigit() and period.isdigit() and int(limit) > 0:
            yield int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
