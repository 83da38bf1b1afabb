"""How much of its memory this process may lock, so that nothing takes it away."""

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
    """What this process may still mlock; `limit` is the soft RLIMIT_MEMLOCK in bytes, by default that of this process."""
    status = read(root / "proc/self/status")
    if _may_lock_all(status, read(root / "proc/self/uid_map")):
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


def _may_lock_all(status: str, uid_map: str) -> bool:
    """CAP_IPC_LOCK counts in the first user namespace alone, which maps every UID to itself."""
    capabilities = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(capabilities, 16) >> _CAP_IPC_LOCK & 1) and uid_map.split() == ["0", "0", str(2**32 - 1)]
