"""Chooses the best way to read files on a filesystem, with the reason as a sentence that a person can check.

`buffered` reads with preadv in large pieces through the page cache. `direct` reads past it (O_DIRECT). `mmap` maps the file
without copying.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from fetcher import quantities
from fetcher.host.memory import Bound
from loader.filesystems import MEMORY
from loader.residency.page_cache import Residency

Strategy = Literal["buffered", "direct", "mmap"]
Mode = Strategy | Literal["stream"]
"""`stream`: the source of a remote file brings its own way to read it."""

_DIRECT = {"ext4", "ext3", "xfs", "f2fs"}
"""Filesystems where O_DIRECT reads from the device. btrfs falls back for checksums and compression; zfs has it since 2.3."""

_MAPPED = _DIRECT | {"btrfs"}
"""Filesystems where a resident mapped page is as good as memory. On a network it may have to be validated again."""

_WHY = {
    "nfs": "on NFS, O_DIRECT bypasses the client's cache and page faults wait for small read-ahead",
    "lustre": "on Lustre, page faults read 28 MiB/s where large reads fill the link",
    "ceph": "on CephFS, page faults wait for the network one small read at a time",
    "virtiofs": "on virtiofs, loading by page faults took 1597 s where large reads took 71 s",
    "fuse": "on FUSE, every page fault is a message to a process; large reads need few messages, and O_DIRECT is often refused",
    "9p": "on 9p, every page fault is a separate message; large reads need few messages",
    "overlay": "an overlay passes reads on to a lower layer, whose support for O_DIRECT is unknown",
    "btrfs": "btrfs verifies and decompresses what it reads, and then O_DIRECT goes through the page cache anyway",
    "zfs": "ZFS has its own cache: mapped files are in memory twice, and O_DIRECT needs ZFS 2.3",
}
_ALIKE = {"nfs4": "nfs", "fuseblk": "fuse"}

_WARM = 0.5
"""From this resident share on, the page cache is faster than the disk: it gives 4-8 GiB/s a core, a disk 1-2. For 2 GiB with 2,
10, 40 % missing, mapping took 0.09, 0.29, 0.64 s, copying 0.45, 0.68, 0.97, reading past the page cache 1.15."""


def is_warm(residency: Residency) -> bool:
    """Return whether processors limit the reading, rather than storage."""
    return (residency.fraction or 0) >= _WARM


def choose_strategy(
    kind: str, residency: Residency | None, left: Callable[[], Bound | None], size: int, *, reread: bool = False
) -> tuple[Strategy, str]:
    """Return the strategy for `size` bytes on a filesystem of this kind, and the reason.

    `residency` is None if unknown. `left` returns the memory for the page cache (None: unknown), and is called only if it
    decides. `reread`: other processes of this machine read the same files.
    """
    if kind in MEMORY:
        return "mmap", f"{kind} is memory: mapping reads and copies nothing"
    if residency is not None and is_warm(residency):
        return _for_warm(kind, residency)
    if kind not in _DIRECT:
        return "buffered", _reason(kind)
    if (bound := left()) is not None and size > bound.bytes:
        limit = f"the page cache can hold ({bound.reason})"
        return "direct", f"{quantities.size(size)} are more than {limit}: the last files would push out the first"
    if not reread:
        return (
            "direct",
            f"{kind} is local, little is in the page cache, and reading past it takes 0.03-0.07 CPU-seconds a GiB",
        )
    return "buffered", f"{kind} is local, and other processes find in the page cache what this one reads"


def _for_warm(kind: str, residency: Residency) -> tuple[Strategy, str]:
    if residency.complete and kind in _MAPPED:
        return "mmap", f"all of it is in the page cache on {kind}: mapping reads and copies nothing"
    percent = math.floor(100 * (residency.fraction or 0))  # rounded down, so never 100 if incomplete
    if kind in _MAPPED:
        return "mmap", f"{percent} % is in the page cache on {kind}: mapping reads only the rest and copies nothing"
    return "buffered", f"{percent} % is in the page cache, which O_DIRECT would not use"


def _reason(kind: str) -> str:
    plain = _ALIKE.get(kind, kind.split(".")[0])
    return _WHY.get(plain) or f"no faster way is known for {kind} than large reads through the page cache"
