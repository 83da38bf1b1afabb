"""How many threads are worth starting: the quotas of the cgroups count, not the machine's processors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from fetcher.host.cgroups import cgroup_files

_FILES = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")


def cpu_count(root: Path = Path("/")) -> int:
    """Whole processors this process may use, at least 1. `root` is where /proc and /sys are."""
    quotas = [quota for _, files in cgroup_files(root, "cpu", _FILES) if (quota := cpu_quota(files)) is not None]
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, round(min(quotas, default=allowed))))


def cpu_quota(files: Mapping[str, str]) -> float | None:
    """Processors' time that one cgroup grants, by the texts of its files; None where it sets no limit."""
    limit, _, period = files.get("cpu.max", "").strip().partition(" ")
    if not period:
        limit, period = files.get("cpu.cfs_quota_us", "").strip(), files.get("cpu.cfs_period_us", "").strip()
    if not (limit.isdecimal() and period.isdecimal() and int(limit) and int(period)):
        return None
    return int(limit) / int(period)
