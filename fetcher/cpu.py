"""How many threads are worth starting: the cgroup's CPU quota counts, not the machine's processors. And how much memory the
cgroup leaves for the page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Whole processors this process may use, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota()
    return max(1, min(allowed, round(quota) if quota else allowed))


def page_cache_room() -> int:
    """Bytes of memory that files may occupy: what is available on the machine, within the cgroup's limit."""
    limits = [_available()]
    for directory in _cgroups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _read(directory / name)
            if text.isdigit():
                limits.append(int(text))
    return min(limits)


def _quota() -> float | None:
    for directory in _cgroups("cpu"):
        limit, _, period = _read(directory / "cpu.max").partition(" ")
        if not period:
            limit, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if limit.isdigit() and period.isdigit() and int(limit) > 0:
            return int(limit) / int(period)
    return None


def _cgroups(controller: str) -> Iterator[Path]:
    """Where the limits of this process are, its own cgroup before the root that a container sees; v2 and v1."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        if names == "" or controller in names.split(","):
            root = _CGROUP / controller if names else _CGROUP
            yield root / path.lstrip("/")
            yield root


def _available() -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 30


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
