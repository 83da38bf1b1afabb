"""Small real filesystems that can be full and can lose power.

::

    with mounted_filesystem("xfs", workspace, size=320 * MiB) as filesystem:
        filesystem.fill(leave=4 * MiB)      # ENOSPC is 4 MiB away
        filesystem.lose_power()             # unsynced data is lost, the filesystem is mounted again
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.lab.availability import missing, program, require_root

Kind = Literal["ext4", "xfs", "btrfs", "tmpfs"]

MiB = 1024 * 1024

SMALLEST: dict[Kind, int] = {"ext4": 8 * MiB, "xfs": 300 * MiB, "btrfs": 112 * MiB, "tmpfs": 64 * 1024}
"""Minimum bytes for mkfs (xfsprogs 6.1, btrfs-progs 6.2). Images are sparse: a large one costs nothing."""

_MKFS: dict[Kind, tuple[str, list[str]]] = {
    "ext4": ("e2fsprogs", ["mkfs.ext4", "-q", "-F", "-m", "0"]),
    "xfs": ("xfsprogs", ["mkfs.xfs", "-q", "-f"]),
    "btrfs": ("btrfs-progs", ["mkfs.btrfs", "-q", "-f"]),
}


@dataclass(frozen=True, slots=True)
class SmallFilesystem:
    """A mounted filesystem. `image` is the file behind the loop device, None for tmpfs."""

    kind: Kind
    path: Path
    image: Path | None
    options: str

    def mount(self) -> None:
        source = str(self.image) if self.image else "tmpfs"
        _run("mount", "-t", self.kind, "-o", self.options, source, str(self.path))

    def unmount(self) -> None:
        """Unmount; the loop device detaches itself. Raises CalledProcessError if a file is open."""
        _run("umount", str(self.path))

    def remount_read_only(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.path))

    def free(self) -> int:
        """Return the bytes that an ordinary user can still write."""
        statistics = os.statvfs(self.path)
        return statistics.f_bavail * statistics.f_frsize

    def fill(self, *, leave: int) -> Path:
        """Allocate all but about `leave` bytes in one file without writing them. Remove the file to free the space."""
        ballast = self.path / "ballast"
        with ballast.open("wb") as file:
            amount = self.free() - leave
            while amount > 0 and not _allocated(file.fileno(), amount):
                amount -= MiB  # the filesystem needs some space for its metadata
        return ballast

    def shut_down(self) -> None:
        """Stop all I/O immediately, as a lost disk does: no more writes, and every later access fails with EIO."""
        xfs_shutdown(self.path)

    def lose_power(self) -> None:
        """Lose all unsynced data and mount the filesystem again.

        No file can be open. For xfs and ext4.
        """
        self.shut_down()
        self.unmount()
        self.mount()


def xfs_shutdown(mount: Path) -> None:
    """Shut down without `-f`, which flushes the log first and so saves data that a power loss loses."""
    _run(program("xfs_io", package="xfsprogs"), "-x", "-c", "shutdown", str(mount))


@contextmanager
def mounted_filesystem(
    kind: Kind, workspace: Path, *, size: int, inodes: int | None = None, options: str = ""
) -> Iterator[SmallFilesystem]:
    """Create a filesystem of `size` bytes, mount it in `workspace`, and always unmount it. `inodes`: for tmpfs only."""
    require_root(f"mount {kind}")
    if size < SMALLEST[kind]:
        raise ValueError(f"{kind} needs at least {SMALLEST[kind]} bytes, not {size}; use fill() to make space scarce")
    path = workspace / "mount"
    path.mkdir(parents=True)
    filesystem = _made(kind, path, size=size, inodes=inodes, options=options)
    try:
        filesystem.mount()
    except subprocess.CalledProcessError as error:
        missing(f"{kind} mount", f"the kernel or the container refuses it: {error.stderr.strip()}")
    try:
        yield filesystem
    finally:
        _unmount_for_good(path)
        if filesystem.image:
            filesystem.image.unlink()


def is_mounted(path: Path) -> bool:
    """Ask the kernel; `os.path.ismount` returns False for the EIO of a filesystem that was shut down."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return str(path.parent.resolve() / path.name) in (mount.split()[4] for mount in mounts)


def _made(kind: Kind, path: Path, *, size: int, inodes: int | None, options: str) -> SmallFilesystem:
    if kind == "tmpfs":
        limits = [f"size={size}", *([f"nr_inodes={inodes}"] if inodes is not None else [])]
        return SmallFilesystem(kind, path, None, ",".join(filter(None, [*limits, options])))
    image = path.with_name(f"{kind}.image")
    with image.open("wb") as file:
        file.truncate(size)
    package, command = _MKFS[kind]
    _run(program(command[0], package=package), *command[1:], str(image))
    return SmallFilesystem(kind, path, image, ",".join(filter(None, ["loop", options])))


def _allocated(descriptor: int, amount: int) -> bool:
    try:
        os.posix_fallocate(descriptor, 0, amount)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def _unmount_for_good(path: Path) -> None:
    """Unmount, lazily if a failed test left a file open."""
    if is_mounted(path) and subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
