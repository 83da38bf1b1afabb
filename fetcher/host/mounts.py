"""The mounts in this process's namespace, parsed from /proc/self/mountinfo."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. `device` is `major:minor`; `root` is the directory of the filesystem that appears at `point` (bind mounts)."""

    number: int
    device: str
    root: str
    point: str
    kind: str
    source: str
    options: tuple[str, ...]
    """The options of the filesystem, not of this mount."""

    def option(self, name: str) -> str | None:
        """Return the value of `name=value`, an empty string for a bare `name`, or None."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the mounts in the kernel's order; malformed lines are skipped."""
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
    r"""Decode `\040` to a space. The kernel escapes space, tab, newline and backslash this way."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount_under(path: Path, mounts: Sequence[Mount], *, number: int | None, device: str) -> Mount | None:
    """Return the mount of `path`, which is absolute and without symlinks; None if there is none.

    `number` is the mount id that the kernel reports for the open file; it decides, also for overmounts. Without it (gVisor)
    the longest mount point wins, preferably with the same `device`; of several at one point, the last.
    """
    named = next((mount for mount in mounts if mount.number == number), None)
    if named is not None:
        return named
    above = [mount for mount in mounts if PurePosixPath(path).is_relative_to(mount.point)]
    same = [mount for mount in above if mount.device == device]
    return max(reversed(same or above), key=lambda mount: len(mount.point), default=None)


def mount_of(path: Path, process: Path = Path("/proc/self")) -> Mount | None:
    """Return the mount of `path`, or None. Raises OSError if the path does not exist."""
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
    """Return the mount id in the text of /proc/self/fdinfo/N, or None."""
    match = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    return int(match[1]) if match else None
