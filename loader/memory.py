"""How much memory is left: on the machine, in every cgroup above this process (v2, v1, hybrid), and to lock.

Clean pages of files count as free, for the kernel gives them up before it refuses anything. So compare with *all* bytes that
are to be warm at once, those already there included. Files on tmpfs are anonymous memory in this respect.

What cannot be seen from inside a container: the limits of the pod above it, if it has a cgroup namespace of its own.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fetcher.telemetry.wording import size
from loader.mounts import Mount, parse_mounts

UNLIMITED = sys.maxsize
_NO_LIMIT_V1 = 1 << 60  # cgroup v1 writes "no limit" as the largest number of whole pages
_CAP_IPC_LOCK = 14
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
    numbers = fields(_read(root / "proc/meminfo"))
    bounds = [machine_bound(numbers)]
    for directory in cgroup_directories(_read(root / "proc/self/cgroup"), parse_mounts(_read(root / "proc/self/mountinfo"))):
        files = {name: _read(root / directory.lstrip("/") / name) for name in _CGROUP_FILES}
        if bound := cgroup_bound(directory, files):
            bounds.append(bound)
    pages = min(bounds, key=lambda bound: bound.bytes)
    if _read(root / "proc/sys/vm/overcommit_memory").strip() != _COMMIT_STRICTLY:
        return MemoryLeft(pages, pages)
    return MemoryLeft(pages, min(pages, commit_bound(numbers), key=lambda bound: bound.bytes))


def lockable(root: Path = Path("/"), limit: int | None = None) -> Bound:
    """What this process may still mlock; `limit` is the soft RLIMIT_MEMLOCK in bytes, by default that of this process."""
    status = _read(root / "proc/self/status")
    if _may_lock_all(status, _read(root / "proc/self/uid_map")):
        return Bound(UNLIMITED, "CAP_IPC_LOCK: no limit to locking")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if limit is None else limit
    if limit == resource.RLIM_INFINITY:
        return Bound(UNLIMITED, "RLIMIT_MEMLOCK: unlimited")
    locked = fields(status).get("VmLck", 0)
    return Bound(max(0, limit - locked), f"RLIMIT_MEMLOCK: limit {size(limit)}, {size(locked)} locked, and no CAP_IPC_LOCK")


def raise_lock_limit() -> None:
    """Raise the soft RLIMIT_MEMLOCK to the hard one, as every process may."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


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


def cgroup_directories(membership: str, mounts: tuple[Mount, ...], controller: str = "memory") -> Iterator[str]:
    """Where the limits of this process are, its own cgroup first, then each one above it that is mounted here.

    `membership` is /proc/self/cgroup. A cgroup outside of what is mounted (a container sees its own, under the host's path) is
    taken to be what is mounted.
    """
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if mount.kind == ("cgroup" if controllers else "cgroup2") and (not controllers or controller in mount.options):
                own = PurePosixPath(mount.point) / _below(path, mount.root)
                yield from (str(above) for above in (own, *own.parents) if above.is_relative_to(mount.point))


def _below(path: str, root: str) -> PurePosixPath:
    inside = PurePosixPath(path)
    if ".." in inside.parts or not inside.is_relative_to(root):
        return PurePosixPath()
    return inside.relative_to(root)


def _may_lock_all(status: str, uid_map: str) -> bool:
    """CAP_IPC_LOCK counts in the first user namespace alone, which maps every UID to itself."""
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _CAP_IPC_LOCK & 1) and uid_map.split() == ["0", "0", str(2**32 - 1)]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""
