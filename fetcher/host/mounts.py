"""/proc/self/mountinfo as values: what is mounted where, in this process's view."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Mount:
    """One line. `device` is `major:minor`; `root` is the directory of the filesystem that shows at `point` (bind mounts)."""

    number: int
    device: str
    root: str
    point: str
    kind: str
    source: str
    options: tuple[str, ...]
    """Of the filesystem, not of this mount of it."""

    def option(self, name: str) -> str | None:
        """The value of `name=value`; an empty one for a bare `name`."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """In the order of the kernel; a line it does not explain is left out."""
    return tuple(mount for line in text.split("\n") if (mount := _parse_line(line)))


def _parse_line(line: str) -> Mount | None:
    before, separator, after = line.partition(" - ")
    left, right = before.split(" "), after.split(" ")
    if not separator or len(left) < 6 or len(right) < 3 or not left[0].isdigit():
        return None
    root, point = decoded(left[3]), decoded(left[4])
    options = tuple(decoded(option) for option in right[2].split(","))
    return Mount(int(left[0]), left[2], root, point, right[0], decoded(right[1]), options)


def decoded(text: str) -> str:
    r"""`\040` → a space; the kernel writes space, tab, newline and backslash so."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount_under(path: Path, mounts: Sequence[Mount], *, number: int | None, device: str) -> Mount | None:
    """The mount that `path`, absolute and without symlinks, lies on.

    `number` is what the kernel says of an open file, and settles it, overmounts and all. Where it says nothing (gVisor), the
    longest mount point wins, the last of several there, preferably one of the same `device`.
    """
    named = next((mount for mount in mounts if mount.number == number), None)
    if named is not None:
        return named
    above = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.point)]
    same = [mount for mount in above if mount.device == device]
    return max(reversed(same or above), key=lambda mount: len(mount.point), default=None)


def mount_of(path: Path, process: Path = Path("/proc/self")) -> Mount | None:
    """The mount that `path` lies on. Raises OSError where there is no such path."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        number = mount_number((process / "fdinfo" / str(fd)).read_text())
        mounts = parse_mounts((process / "mountinfo").read_text(errors="surrogateescape"))
        real = Path(os.path.realpath(path))
        return mount_under(real, mounts, number=number, device=f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
    finally:
        os.close(fd)


def mount_number(fdinfo: str) -> int | None:
    """The mount that /proc/self/fdinfo/N names."""
    match = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    return int(match[1]) if match else None
