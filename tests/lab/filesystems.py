"""Small real filesystems: full when they say they are full, and able to lose power.

::

    with mounted_filesystem("xfs", workspace, size=320 * MiB) as filesystem:
        filesystem.fill(leave=4 * MiB)      # ENOSPC is 4 MiB away
        filesystem.lose_power()             # what was not synced is gone, the filesystem is mounted again
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
"""Bytes, below which mkfs refuses (xfsprogs 6.1, btrfs-progs 6.2). Images are sparse: a large one costs nothing."""

_MKFS: dict[Kind, tuple[str, list[str]]] = {
    "ext4": ("e2fsprogs", ["mkfs.ext4", "-q", "-F", "-m", "0"]),
    "xfs": ("xfsprogs", ["mkfs.xfs", "-q", "-f"]),
    "btrfs": ("btrfs-progs", ["mkfs.btrfs", "-q", "-f"]),
}


@dataclass(frozen=True, slots=True)
class SmallFilesystem:
    """A mounted filesystem of its own. `image` is the file behind the loop device, None for tmpfs."""

    kind: Kind
    path: Path
    image: Path | None
    options: str

    def mount(self) -> None:
        source = str(self.image) if self.image else "tmpfs"
        _run("mount", "-t", self.kind, "-o", self.options, source, str(self.path))

    def unmount(self) -> None:
        """The loop device detaches itself with the last use. A file still open keeps the mount: CalledProcessError."""
        _run("umount", str(self.path))

    def remount_read_only(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.path))

    def free(self) -> int:
        """Bytes an ordinary user may still write."""
        statistics = os.statvfs(self.path)
        return statistics.f_bavail * statistics.f_frsize

    def fill(self, *, leave: int) -> Path:
        """Allocate all but about `leave` bytes in one file, without writing them; removing it gives the space back."""
        ballast = self.path / "ballast"
        with ballast.open("wb") as file:
            amount = self.free() - leave
            while amount > 0 and not _allocated(file.fileno(), amount):
                amount -= MiB  # the filesystem needs some of it for its own records
        return ballast

    def shut_down(self) -> None:
        """Stop all I/O at once, as a lost disk would: nothing more is written, every later access is EIO."""
        xfs_shutdown(self.path)

    def lose_power(self) -> None:
        """What was synced is there afterwards; what was not is gone, although its writer saw it written.

        No file on it may be open. For xfs and ext4.
        """
        self.shut_down()
        self.unmount()
        self.mount()


def xfs_shutdown(mount: Path) -> None:
    """Without `-f`, which would flush the log first and so save what a power loss does not."""
    _run(program("xfs_io", package="xfsprogs"), "-x", "-c", "shutdown", str(mount))


@contextmanager
def mounted_filesystem(
    kind: Kind, workspace: Path, *, size: int, inodes: int | None = None, options: str = ""
) -> Iterator[SmallFilesystem]:
    """A new filesystem of `size` bytes, mounted in `workspace`, unmounted whatever happens. `inodes`: of tmpfs only."""
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
    """As the kernel says; `os.path.ismount` takes the EIO of a filesystem that was shut down for a no."""
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
    """Lazily if need be: a file that a failed test left open must not leave a mount behind."""
    if is_mounted(path) and subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
