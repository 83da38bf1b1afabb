"""Where the limits of this process are written: in its own cgroup and in each one above it (v1, v2, hybrid).

What cannot be seen from inside a container: the limits of the pod above it, if it has a cgroup namespace of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fetcher.host.mounts import Mount, parse_mounts


def cgroup_files(root: Path, controller: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Of each cgroup that limits this process, its own first, the directory and the files `names`: name → text, which is empty
    where there is no such file. `root` is where /proc and /sys are."""
    membership = read(root / "proc/self/cgroup")
    for directory in cgroup_directories(membership, parse_mounts(read(root / "proc/self/mountinfo")), controller):
        yield directory, {name: read(root / directory.lstrip("/") / name) for name in names}


def cgroup_directories(membership: str, mounts: tuple[Mount, ...], controller: str) -> Iterator[str]:
    """The process's own cgroup, then each one above it that is mounted here.

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


def read(path: Path) -> str:
    """The text of a file of the kernel; empty where there is none, or it can't be read."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _below(path: str, root: str) -> PurePosixPath:
    inside = PurePosixPath(path)
    if ".." in inside.parts or not inside.is_relative_to(root):
        return PurePosixPath()
    return inside.relative_to(root)
