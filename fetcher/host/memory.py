"""How much memory is left: on the machine, and in every cgroup above this process.

Clean pages of files count as free, for the kernel gives them up before it refuses anything. So compare with *all* bytes that
are to be warm at once, those already there included. Files on tmpfs are anonymous memory in this respect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fetcher.host.cgroups import cgroup_files, read
from fetcher.quantities import size

_NO_LIMIT_V1 = 1 << 60  # cgroup v1 writes "no limit" as the largest number of whole pages
_COMMIT_STRICTLY = "2"


@dataclass(frozen=True, slots=True)
class Bound:
    """So many bytes, and what sets the bound, in words."""

    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryLeft:
    """For pages of files, and for what a process allocates."""

    pages: Bound
    anonymous: Bound


def memory_left(root: Path = Path("/")) -> MemoryLeft:
    """The least of all bounds. `root` is where /proc and /sys are."""
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
    """`MemFree:  12 kB`, `VmLck: 12 kB`, `inactive_file 4096` → bytes; what is no number is left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.replace(":", " ", 1).partition(" ")
        words = value.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def machine_bound(meminfo: Mapping[str, int]) -> Bound:
    """What the kernel thinks can be had without swapping."""
    available = meminfo.get("MemAvailable", meminfo.get("MemFree", 0))
    return Bound(available, f"machine: {size(available)} of {size(meminfo.get('MemTotal', 0))} available")


def commit_bound(meminfo: Mapping[str, int]) -> Bound:
    """Where the kernel promises no memory that it does not have."""
    limit, used = meminfo.get("CommitLimit", 0), meminfo.get("Committed_AS", 0)
    return Bound(max(0, limit - used), f"vm.overcommit_memory=2: limit {size(limit)}, {size(used)} promised")


_CGROUP_FILES = (
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.stat",
)


def cgroup_bound(directory: str, files: Mapping[str, str]) -> Bound | None:
    """What one cgroup leaves, by the texts of its files that are there; None where it sets no limit."""
    stat = fields(files.get("memory.stat", ""))
    v1 = bool(files.get("memory.limit_in_bytes"))
    names = ("memory.limit_in_bytes",) if v1 else ("memory.max", "memory.high")
    limits = [int(text) for name in names if (text := files.get(name, "").strip()).isdecimal()]
    if v1:
        limits.append(stat.get("hierarchical_memory_limit", _NO_LIMIT_V1))  # knows ancestors a container does not see
    limit = min(limits, default=_NO_LIMIT_V1)
    used = files.get("memory.usage_in_bytes" if v1 else "memory.current", "").strip()
    if limit >= _NO_LIMIT_V1 or not used.isdecimal():
        return None
    prefix = "total_" if v1 else ""
    kept = max(0, int(used) - stat.get(f"{prefix}inactive_file", 0) - stat.get(f"{prefix}active_file", 0))
    return Bound(max(0, limit - kept), f"cgroup {directory}: limit {size(limit)}, {size(kept)} used")
