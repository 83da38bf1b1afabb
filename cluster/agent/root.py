"""The directory of the node where models lie: whether it may be used, and its limits."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cluster.agent.states import Problem
from cluster.resources import Medium, NodeCacheSpec
from fetcher import cache
from fetcher.errors import FetchError
from fetcher.host.mounts import Mount, mount_of
from fetcher.quantities import Amount, parse_amount

_OF_THE_NODE = (Path("/"), Path("/etc/hosts"), Path("/etc/hostname"), Path("/dev/termination-log"))
"""Where the node's root filesystem shows: outside of a container its root, inside of one the files of the kubelet."""
_SHARED, _OWN = Amount(20, percent=True), Amount(5, percent=True)
"""What stays free by default. The kubelet evicts pods below 10 % and removes images above 85 % used, so a filesystem that it
shares needs more."""
_ALL = Amount(100, percent=True)


@dataclass(frozen=True, slots=True)
class Ground:
    """What the root stands on. `shared`: the node's own root filesystem, or the kubelet's. `size` in bytes."""

    shared: bool
    size: int


def examine(root: Path, medium: Medium, *, allow_root_filesystem: bool) -> Ground | Problem:
    """Return what `root` stands on, or why it cannot be used."""
    try:
        if not root.is_dir():
            return Problem("RootMissing", f"{root} is no directory on this node; make it, or correct the pool's root")
        mount = mount_of(root)
        shared = on_root_filesystem(root, mount, _mounts(_OF_THE_NODE))
        status = os.statvfs(root)
    except OSError as error:
        return Problem("RootMissing", f"cannot examine {root}: {(error.strerror or str(error)).lower()}; repair the filesystem")
    if (problem := of_another_medium(root, mount, medium)) is not None:
        return problem
    if shared and not allow_root_filesystem:
        return Problem(
            "NotAMountPoint",
            f"{root} lies on the node's root filesystem, so models would fill that; mount a filesystem there, or set "
            "allowRootFilesystem in the pool",
        )
    return Ground(shared, status.f_blocks * status.f_frsize)


def of_another_medium(root: Path, mount: Mount | None, medium: Medium) -> Problem | None:
    """Return why `root`, whose mount is `mount`, is not on `medium`. Pure.

    Only tmpfs will do as memory: ramfs has no bound, and nothing can be written to hugetlbfs. As a disk it would hold memory
    that neither the scheduler nor the agent's own limit knows of: they know `memory.budget`.
    """
    kind = mount.kind if mount is not None else "an unknown filesystem"
    if (kind == "tmpfs") == (medium == "Memory") and (medium == "Memory" or kind != "ramfs"):
        return None
    if medium == "Memory":
        remedy = "mount a tmpfs there on the node, or set medium: Disk"
    else:
        remedy = "mount a disk there on the node, or set medium: Memory, and memory.budget to what models may occupy"
    return Problem("MediumMismatch", f"{root} is on {kind}, and the pool's medium is {medium}; {remedy}")


def on_root_filesystem(root: Path, mount: Mount | None, of_the_node: Iterable[Mount]) -> bool:
    """Whether `root`, an absolute path whose mount is `mount`, lies on a filesystem of the node itself. Pure.

    In a container the node's / is not there. But the root is mounted at the path that it has on the node, so if that is also
    its path within its filesystem, that filesystem is mounted at the node's /.
    """
    if mount is None:
        return True
    if mount.device in {each.device for each in of_the_node}:
        return True
    return mount.root != "/" and PurePosixPath(mount.point) == PurePosixPath(root) and mount.root == mount.point


def limits_of(spec: NodeCacheSpec, ground: Ground, min_idle: float) -> cache.CacheLimits:
    """Return the limits that the pool sets. Raises ConfigurationError for an amount that is none."""
    free = parse_amount(spec.min_free) if spec.min_free else _SHARED if ground.shared else _OWN
    # A limit that the pool no longer has must not stay in the root.
    most = parse_amount(spec.limit) if spec.limit else _ALL
    if spec.medium == "Memory":
        most = min(most, Amount(spec.memory_budget), key=lambda amount: amount.of(ground.size))
    return cache.CacheLimits(most, free, min_idle)


def limit(root: Path, limits: cache.CacheLimits) -> Problem | None:
    """Set the limits of the root; every fetch obeys them, also those of pods. Blocks."""
    try:
        cache.init(root, limits)
    except FetchError as error:
        return Problem(error.reason, error.message)
    return None


def capacity_of(root: Path, limits: cache.CacheLimits, *, used: int) -> int:
    """Return what models may occupy in bytes, now that they occupy `used`. Raises OSError."""
    bounds, status = limits.bounds(root), os.statvfs(root)
    there = used + status.f_bavail * status.f_frsize - (bounds.min_free or 0)
    return max(0, min(there, bounds.max_size if bounds.max_size is not None else there))


def _mounts(paths: Iterable[Path]) -> list[Mount]:
    found = []
    for path in paths:
        try:
            mount = mount_of(path)
        except OSError:
            continue
        if mount is not None and mount.kind not in ("overlay", "tmpfs", "devtmpfs", "proc"):
            found.append(mount)
    return found
