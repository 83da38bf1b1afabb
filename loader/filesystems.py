"""What a path lies on, and how it is best read there, with the reason as a sentence a person can check.

`buffered` reads with preadv in large pieces, through the page cache; `direct` reads past it (O_DIRECT); `mmap` maps and copies
nothing.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fetcher import quantities
from fetcher.host.memory import Bound
from fetcher.host.mounts import Mount, mount_of
from loader.errors import from_os_error
from loader.residency import Residency

Strategy = Literal["buffered", "direct", "mmap"]

_MEMORY = {"tmpfs", "ramfs", "hugetlbfs", "devtmpfs", "rootfs"}
_NETWORK = {
    *("nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "smbfs", "gpfs", "beegfs", "glusterfs", "pvfs2", "orangefs"),
    *("9p", "virtiofs", "afs", "wekafs", "fhgfs", "panfs", "vboxsf", "prl_fs"),
}
_LOCAL_FUSE = {"fuse.lxcfs", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.ntfs-3g", "fuse.exfat"}
_DIRECT = {"ext4", "ext3", "xfs", "f2fs"}
"""Where O_DIRECT reads straight from the device. btrfs falls back where it checks or unpacks, zfs has it since 2.3 only."""

_MAPPED = _DIRECT | {"btrfs"}
"""Where a mapped page, once there, is as good as memory. On a network it may have to be asked for again."""

_WHY = {
    "nfs": "on NFS, O_DIRECT gives up the client's cache and page faults wait for small read-ahead",
    "lustre": "on Lustre, page faults were seen to bring 28 MiB/s where large reads fill the link",
    "ceph": "on CephFS, page faults wait for the network one small read at a time",
    "virtiofs": "on virtiofs, loading by page faults took 1597 s where large reads took 71 s",
    "fuse": "on FUSE, every page fault is a message to a process; large reads need few, and O_DIRECT is often refused",
    "9p": "on 9p, every page fault is a message of its own; large reads need few",
    "overlay": "an overlay passes reads on to the layer below, of whose O_DIRECT nothing is known",
    "btrfs": "btrfs checks what it reads, and where it also unpacks it, O_DIRECT goes through the page cache all the same",
    "zfs": "ZFS has a cache of its own: mapped files lie in memory twice, and O_DIRECT works since 2.3 only",
}
_ALIKE = {"nfs4": "nfs", "fuseblk": "fuse"}

_WARM = 0.5
"""From here on the page cache brings more than the disk does: warm it gives 4-8 GiB/s a core, a disk 1-2. Of 2 GiB, 2, 10, 40 %
of them missing, mapping took 0.09, 0.29, 0.64 s, copying 0.45, 0.68, 0.97, reading past the page cache 1.15."""

_ENOUGH_READ_AHEAD = 1024  # KiB


@dataclass(frozen=True, slots=True)
class Filesystem:
    """`kind` as the kernel names it (`fuse.juicefs`); `below`: the kinds of an overlay's layers, if seen from here."""

    kind: str
    point: str
    source: str
    device: str
    below: tuple[str, ...] = ()

    @property
    def network(self) -> bool:
        """Other hosts see it too, and a read waits for the network."""
        return is_network(self.kind) or any(map(is_network, self.below))

    @property
    def memory(self) -> bool:
        """Its files are memory already."""
        return self.kind in _MEMORY


def is_network(kind: str) -> bool:
    """FUSE counts, unless it is known to serve local files: what mounts model weights so fetches them from elsewhere."""
    return kind in _NETWORK or (kind.split(".")[0] == "fuse" and kind not in _LOCAL_FUSE)


def filesystem_of(path: Path) -> Filesystem:
    """What `path` lies on; of kind `unknown` where the kernel does not say. Raises NotFound, NotReadable, LocalIOError."""
    try:
        mount = mount_of(path)
    except OSError as error:
        raise from_os_error(error, doing="look at the filesystem", path=str(path)) from error
    if mount is None:
        return Filesystem("unknown", "/", "", "0:0")
    return Filesystem(mount.kind, mount.point, mount.source, mount.device, tuple(_kinds_below(mount)))


def layers(mount: Mount) -> tuple[str, ...]:
    """The directories an overlay consists of, the upper one first, as they were called where it was mounted."""
    lower = [value for option in mount.options if (value := option.removeprefix("lowerdir+=")) != option]
    lower = lower or [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:\\.|[^:\\])+", mount.option("lowerdir") or "")]
    return tuple(filter(None, [mount.option("upperdir"), *lower]))


def _kinds_below(mount: Mount) -> Iterator[str]:
    """In a container the layers lie where only the host sees them; then there is nothing to say."""
    if mount.kind == "overlay":
        for layer in layers(mount):
            if os.path.isabs(layer) and os.path.isdir(layer) and (below := mount_of(Path(layer))):
                yield below.kind


def is_warm(residency: Residency) -> bool:
    """Whether reading is a matter of processors rather than of storage."""
    return (residency.fraction or 0) >= _WARM


def choose_strategy(
    kind: str, residency: Residency | None, left: Callable[[], Bound | None], size: int, *, reread: bool = False
) -> tuple[Strategy, str]:
    """How to read `size` bytes on a filesystem of this kind, and why. None: not known. `left` is called where it decides.

    `reread`: other processes of this machine read them too.
    """
    if kind in _MEMORY:
        return "mmap", f"{kind} is memory: mapping it reads and copies nothing"
    if residency is not None and is_warm(residency):
        return _for_warm(kind, residency)
    if kind not in _DIRECT:
        return "buffered", _reason(kind)
    if (bound := left()) is not None and size > bound.bytes:
        most = f"the page cache can hold ({bound.reason})"
        return "direct", f"{quantities.size(size)} are more than {most}: the last would push out the first"
    if not reread:
        return (
            "direct",
            f"{kind} is local, little is known to be in the page cache, and past that a GiB takes 0.03-0.07 CPU-seconds",
        )
    return "buffered", f"{kind} is local, and what one process reads stays in the page cache for the others"


def _for_warm(kind: str, residency: Residency) -> tuple[Strategy, str]:
    if residency.complete and kind in _MAPPED:
        return "mmap", f"all of it is in the page cache of {kind}: mapping it reads and copies nothing"
    there = math.floor(100 * (residency.fraction or 0))  # never 100 of what is not complete
    if kind in _MAPPED:
        return "mmap", f"{there} % is in the page cache of {kind}: mapping it reads only the rest, and copies nothing"
    return "buffered", f"{there} % is in the page cache, which O_DIRECT would not use"


def _reason(kind: str) -> str:
    plain = _ALIKE.get(kind, kind.split(".")[0])
    return _WHY.get(plain) or f"{kind} is not known to be faster in another way than by large reads through the page cache"


def read_ahead_kib(device: str, root: Path = Path("/sys")) -> int | None:
    """How far the kernel reads ahead on a filesystem's device (`major:minor`), in KiB; None where it does not say."""
    block = root / "dev/block" / device
    for file in (
        root / "class/bdi" / device / "read_ahead_kb",
        block / "queue/read_ahead_kb",
        block.resolve().parent / "queue/read_ahead_kb",  # a partition shares its disk's
    ):
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            continue
    return None


def read_ahead_advice(filesystem: Filesystem, kib: int | None) -> str | None:
    """What to do about a network filesystem that reads ahead too little; None when nothing is to be done."""
    if kib is None or kib >= _ENOUGH_READ_AHEAD or not filesystem.network:
        return None
    return (
        f"{filesystem.kind} at {filesystem.point} reads ahead only {kib} KiB, which slows whatever reads in small pieces; "
        f"as root on the node: echo {_ENOUGH_READ_AHEAD} > /sys/class/bdi/{filesystem.device}/read_ahead_kb"
    )
