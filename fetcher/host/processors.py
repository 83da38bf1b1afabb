"""The processors that this process may use: the quotas of its cgroups count, not the machine's processors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fetcher.host.cgroups import cgroup_files

_FILES = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")


def cpu_count(root: Path = Path("/")) -> int:
    """Return the number of processors this process may use, at least 1. `root` is the directory that holds /proc and /sys."""
    quotas = [quota for _, files in cgroup_files(root, "cpu", _FILES) if (quota := cpu_quota(files)) is not None]
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, round(min(quotas, default=allowed))))


def cpu_quota(files: Mapping[str, str]) -> float | None:
    """Return the processors that one cgroup grants, from the texts of its files; None if it sets no limit."""
    limit, _, period = files.get("cpu.max", "").strip().partition(" ")
    if not period:
        limit, period = files.get("cpu.cfs_quota_us", "").strip(), files.get("cpu.cfs_period_us", "").strip()
    if not (limit.isdecimal() and period.isdecimal() and int(limit) and int(period)):
        return None
    return int(limit) / int(period)
