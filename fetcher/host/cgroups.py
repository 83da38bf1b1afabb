"""The cgroups that limit this process: its own and each one above it (v1, v2, hybrid).

A container with its own cgroup namespace cannot see the limits of its pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fetcher.host.mounts import Mount, parse_mounts


def cgroup_files(root: Path, controller: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the directory and the files `names` of each cgroup that limits this process, its own first.

    The files are name → text; a missing file has an empty text. `root` is the directory that holds /proc and /sys.
    """
    membership = read(root / "proc/self/cgroup")
    for directory in cgroup_directories(membership, parse_mounts(read(root / "proc/self/mountinfo")), controller):
        yield directory, {name: read(root / directory.lstrip("/") / name) for name in names}


def cgroup_directories(membership: str, mounts: tuple[Mount, ...], controller: str) -> Iterator[str]:
    """Yield the directory of the process's own cgroup, then of each mounted one above it.

    `membership` is the text of /proc/self/cgroup. A container may see the host's path there and only its own cgroup mounted.
    So a cgroup outside the mount counts as the root of the mount.
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
    """Return the text of a kernel file; empty if it does not exist or cannot be read."""
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _below(path: str, root: str) -> PurePosixPath:
    inside = PurePosixPath(path)
    if ".." in inside.parts or not inside.is_relative_to(root):
        return PurePosixPath()
    return inside.relative_to(root)
