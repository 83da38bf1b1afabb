"""The filesystem of a path: its kind, whether other hosts share it, and how far the kernel reads ahead on it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from fetcher.host.mounts import Mount, mount_of
from fetcher.values import dataclass
from loader.errors import from_os_error

MEMORY = {"tmpfs", "ramfs", "hugetlbfs", "devtmpfs", "rootfs"}
"""Kinds of filesystems that keep their files in memory."""
_NETWORK = {
    *("nfs", "nfs4", "lustre", "ceph", "cifs", "smb3", "smbfs", "gpfs", "beegfs", "glusterfs", "pvfs2", "orangefs"),
    *("9p", "virtiofs", "afs", "wekafs", "fhgfs", "panfs", "vboxsf", "prl_fs"),
}
_LOCAL_FUSE = {"fuse.lxcfs", "fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.ntfs-3g", "fuse.exfat"}
_ENOUGH_READ_AHEAD = 1024  # KiB


@dataclass(frozen=True, slots=True)
class Filesystem:
    """`kind` is the kernel's name for it (`fuse.juicefs`). `below`: the kinds of an overlay's layers, if they are visible."""

    kind: str
    point: str
    source: str
    device: str
    below: tuple[str, ...] = ()

    @property
    def network(self) -> bool:
        """Whether other hosts share it and reads wait for the network."""
        return is_network(self.kind) or any(map(is_network, self.below))

    @property
    def memory(self) -> bool:
        """Whether it keeps its files in memory."""
        return self.kind in MEMORY


def is_network(kind: str) -> bool:
    """Return whether it is a network filesystem. FUSE counts as one, unless it is known to serve local files."""
    return kind in _NETWORK or (kind.split(".")[0] == "fuse" and kind not in _LOCAL_FUSE)


def filesystem_of(path: Path) -> Filesystem:
    """Return the filesystem of `path`; of kind `unknown` if the kernel hides it. Raises NotFound, NotReadable, LocalIOError."""
    try:
        mount = mount_of(path)
    except OSError as error:
        raise from_os_error(error, doing="look at the filesystem", path=str(path)) from error
    if mount is None:
        return Filesystem("unknown", "/", "", "0:0")
    return Filesystem(mount.kind, mount.point, mount.source, mount.device, tuple(_kinds_below(mount)))


def layers(mount: Mount) -> tuple[str, ...]:
    """Return the directories of an overlay, the upper one first, with the paths they had when it was mounted."""
    lower = [value for option in mount.options if (value := option.removeprefix("lowerdir+=")) != option]
    lower = lower or [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"(?:\\.|[^:\\])+", mount.option("lowerdir") or "")]
    return tuple(filter(None, [mount.option("upperdir"), *lower]))


def _kinds_below(mount: Mount) -> Iterator[str]:
    """Empty in a container: only the host sees the layers."""
    if mount.kind == "overlay":
        for layer in layers(mount):
            if os.path.isabs(layer) and os.path.isdir(layer) and (below := mount_of(Path(layer))):
                yield below.kind


def read_ahead_kib(device: str, root: Path = Path("/sys")) -> int | None:
    """Return the read-ahead of a filesystem's device (`major:minor`) in KiB; None if the kernel does not say."""
    block = root / "dev/block" / device
    for file in (
        root / "class/bdi" / device / "read_ahead_kb",
        block / "queue/read_ahead_kb",
        block.resolve().parent / "queue/read_ahead_kb",  # a partition has no queue: its disk has it
    ):
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            continue
    return None


def read_ahead_advice(filesystem: Filesystem, kib: int | None) -> str | None:
    """Return a sentence that says how to raise the read-ahead of a network filesystem; None if that is not needed."""
    if kib is None or kib >= _ENOUGH_READ_AHEAD or not filesystem.network:
        return None
    return (
        f"{filesystem.kind} at {filesystem.point} reads ahead only {kib} KiB, which slows programs that read in small pieces; "
        f"raise it as root on the node: echo {_ENOUGH_READ_AHEAD} > /sys/class/bdi/{filesystem.device}/read_ahead_kb"
    )
