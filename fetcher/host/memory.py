"""The memory left on the machine and in every cgroup above this process.

Clean pages of files count as free, since the kernel reclaims them before it refuses an allocation. So compare with *all*
bytes that are to be warm at once, including those already resident. Files on tmpfs count as anonymous memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fetcher.host.cgroups import cgroup_files, read
from fetcher.quantities import size
from fetcher.values import dataclass

_NO_LIMIT_V1 = 1 << 60  # cgroup v1 writes "no limit" as the largest number of whole pages
_COMMIT_STRICTLY = "2"


@dataclass(frozen=True, slots=True)
class Bound:
    """A number of bytes, and the reason for this bound in words."""

    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryLeft:
    """Memory left for pages of files, and for anonymous allocations of a process."""

    pages: Bound
    anonymous: Bound


def memory_left(root: Path = Path("/")) -> MemoryLeft:
    """Return the lowest of all bounds. `root` is the directory that holds /proc and /sys."""
    numbers = fields(read(root / "proc/meminfo"))
    bounds = [machine_bound(numbers)]
    for directory, files in cgroup_files(root, "memory", _CGROUP_FILES):
        if bound := cgroup_bound(directory, files):
            bounds.append(bound)
    pages = min(bounds, key=lambda bound: bound.bytes)
    if read(root / "proc/sys/vm/overcommit_memory").strip() != _COMMIT_STRICTLY:
        return MemoryLeft(pages, pages)
    return MemoryLeft(pages, min(pages, commit_bound(numbers), key=lambda bound: bound.bytes))


def fields(text: str) -> dict[str, int]:
    """Parse lines such as `MemFree:  12 kB` and `inactive_file 4096` into name → bytes; skip lines without a number."""
    numbers = {}
    for line in text.splitlines():
        name, _, value = line.replace(":", " ", 1).partition(" ")
        words = value.split()
        if words and words[0].isdecimal():
            numbers[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return numbers


def machine_bound(meminfo: Mapping[str, int]) -> Bound:
    """Return the memory that the kernel estimates to be available without swapping."""
    available = meminfo.get("MemAvailable", meminfo.get("MemFree", 0))
    return Bound(available, f"machine: {size(available)} of {size(meminfo.get('MemTotal', 0))} available")


def commit_bound(meminfo: Mapping[str, int]) -> Bound:
    """Return the memory that the kernel can still commit in its strict mode (vm.overcommit_memory=2)."""
    limit, used = meminfo.get("CommitLimit", 0), meminfo.get("Committed_AS", 0)
    return Bound(max(0, limit - used), f"vm.overcommit_memory=2: limit {size(limit)}, {size(used)} committed")


_CGROUP_FILES = (
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.stat",
)


def cgroup_bound(directory: str, files: Mapping[str, str]) -> Bound | None:
    """Return the memory left in one cgroup, from the texts of its files; None if it sets no limit."""
    stat = fields(files.get("memory.stat", ""))
    v1 = bool(files.get("memory.limit_in_bytes"))
    names = ("memory.limit_in_bytes",) if v1 else ("memory.max", "memory.high")
    limits = [int(text) for name in names if (text := files.get(name, "").strip()).isdecimal()]
    if v1:
        limits.append(stat.get("hierarchical_memory_limit", _NO_LIMIT_V1))  # covers ancestors that a container cannot see
    limit = min(limits, default=_NO_LIMIT_V1)
    used = files.get("memory.usage_in_bytes" if v1 else "memory.current", "").strip()
    if limit >= _NO_LIMIT_V1 or not used.isdecimal():
        return None
    prefix = "total_" if v1 else ""
    kept = max(0, int(used) - stat.get(f"{prefix}inactive_file", 0) - stat.get(f"{prefix}active_file", 0))
    return Bound(max(0, limit - kept), f"cgroup {directory}: limit {size(limit)}, {size(kept)} used")
