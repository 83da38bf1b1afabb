"""The amount of memory that this process is allowed to lock."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from fetcher.host.cgroups import read
from fetcher.host.memory import Bound, fields
from fetcher.quantities import size

UNLIMITED = sys.maxsize
_CAP_IPC_LOCK = 14


def lockable(root: Path = Path("/"), limit: int | None = None) -> Bound:
    """Return how many more bytes this process can mlock, and why. `limit`: soft RLIMIT_MEMLOCK, by default this process's."""
    status = read(root / "proc/self/status")
    if _has_lock_capability(status, read(root / "proc/self/uid_map")):
        return Bound(UNLIMITED, "CAP_IPC_LOCK: no limit to locking")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if limit is None else limit
    if limit == resource.RLIM_INFINITY:
        return Bound(UNLIMITED, "RLIMIT_MEMLOCK: unlimited")
    locked = fields(status).get("VmLck", 0)
    return Bound(max(0, limit - locked), f"RLIMIT_MEMLOCK: limit {size(limit)}, {size(locked)} locked, and no CAP_IPC_LOCK")


def raise_lock_limit() -> None:
    """Raise the soft RLIMIT_MEMLOCK to the hard one. This needs no privilege."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def _has_lock_capability(status: str, uid_map: str) -> bool:
    """CAP_IPC_LOCK counts only in the initial user namespace, which maps every UID to itself."""
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _CAP_IPC_LOCK & 1) and uid_map.split() == ["0", "0", str(2**32 - 1)]
