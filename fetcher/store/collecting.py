"""Moves the finished units of a cooperative fetch into the staging of their artifact.

A unit is finished when its manifest is sealed: every file was verified, synced and closed before. So its inodes can be moved,
whoever held them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fetcher.errors import LocalIOError, NewerFormat
from fetcher.filesystem import first_names
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.store.beneath import rename
from fetcher.store.contender import Contender
from fetcher.store.layout import Root, fence_of
from fetcher.store.lease import Lease
from fetcher.store.plan import Plan, remove_plan, unit_name

_POLL = 0.1


def finished_unit(root: Path, key: str, plan: Plan, number: int) -> Manifest | None:
    """Return the sealed manifest of a unit; None if it is not finished. Raises OSError, NewerFormat."""
    directory = Root(root).staging / unit_name(key, plan, number)
    try:
        names = first_names(directory, "data.", limit=1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Manifest.read(directory / names[0] / RELATIVE_PATH) if names else None


def collect(root: Path, key: str, plan: Plan, lease: Lease) -> tuple[list[Manifest], list[Lease]]:
    """Move the files of all units to the data of `lease`, which a takeover fences. Return their manifests and leases. Blocks.

    A kill in between loses nothing: the next collector finds each file in the one place or the other. Raises OSError,
    LeaseLost, LocalIOError.
    """
    manifests: list[Manifest] = []
    units: list[Lease] = []
    try:
        for number in range(len(plan.units)):
            units.append(_taken(root, unit_name(key, plan, number), lease))
            manifest = Manifest.read(units[-1].data / RELATIVE_PATH)
            if manifest is None:
                raise LocalIOError(f"a unit of the fetch, {units[-1].directory}, is not finished any more; run all parts again")
            _move(root, manifest.files, units[-1], lease)
            manifests.append(manifest)
    except BaseException:
        for unit in units:
            unit.release()
        raise
    return manifests, units


def discard(root: Path, key: str, plan: Plan) -> None:
    """Remove what is left of a plan after its artifact was published: units that no living part holds, and the plan itself."""
    staging = Root(root).staging
    for number in range(len(plan.units)):
        with suppress(OSError, NewerFormat):
            name = unit_name(key, plan, number)
            if isinstance(unit := Contender(staging, name, stale=float("inf")).attempt(), Lease):
                unit.dissolve()
    remove_plan(root, key)


def _move(root: Path, files: Iterable[ManifestFile], unit: Lease, lease: Lease) -> None:
    for file in files:
        lease.keep()
        source, target = unit.data / file.path, lease.data / file.path
        fence = fence_of(target)
        fence.make_directories(target.parent)
        try:
            rename(root, source, root, target)
        except FileNotFoundError:
            if not target.is_file():  # moved by an earlier collector
                raise


def _taken(root: Path, name: str, lease: Lease) -> Lease:
    """Take the lease of a finished unit. Its owner releases it in a moment, or is gone."""
    contender = Contender(Root(root).staging, name, stale=lease.stale)
    while not isinstance(unit := contender.attempt(), Lease):
        lease.keep()
        time.sleep(_POLL)
    return unit
