"""Moves the finished units of a cooperative fetch into the staging of their artifact.

A unit is finished when its manifest is sealed: every file was verified, synced and closed before. So its inodes can be moved,
whoever held them. Segments stay in their units until the artifact is sealed: they are read when their file is joined.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fetcher.artifact import ByteRange
from fetcher.errors import LocalIOError, NewerFormat
from fetcher.filesystem import first_names
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.planning.units import Unit
from fetcher.store.beneath import rename
from fetcher.store.contender import Contender
from fetcher.store.joining import Segment
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


@dataclass(slots=True)
class Collected:
    """What the units brought: entries of whole files, which are in their place now, and segments by the path of their file.

    The leases of all `units` are held.
    """

    files: list[ManifestFile] = field(default_factory=list)
    segments: dict[str, list[Segment]] = field(default_factory=dict)
    units: list[Lease] = field(default_factory=list)
    authenticated: bool = False

    def add(self, unit: Unit, lease: Lease, manifest: Manifest) -> None:
        """Add a finished unit whose whole files were moved."""
        self.authenticated |= manifest.authenticated
        if unit.segment is None:
            self.files += manifest.files
        for entry in manifest.files if unit.segment is not None else ():
            segment = Segment(lease.data / entry.path, unit.segment or ByteRange(0, 0), entry.chunks)
            self.segments.setdefault(entry.path, []).append(segment)

    def release(self) -> None:
        """Give the units back as they are."""
        for unit in self.units:
            unit.release()

    def dissolve(self) -> None:
        """Remove the units."""
        for unit in self.units:
            unit.dissolve()


def collect(root: Path, key: str, plan: Plan, lease: Lease) -> Collected:
    """Move the whole files of all units to the data of `lease`, which a takeover fences. Blocks.

    A kill in between loses nothing: the next collector finds each file in the one place or the other. Raises OSError,
    LeaseLost, LocalIOError.
    """
    collected = Collected()
    try:
        for number, unit in enumerate(plan.units):
            held = _taken(root, unit_name(key, plan, number), lease)
            collected.units.append(held)
            manifest = Manifest.read(held.data / RELATIVE_PATH)
            if manifest is None:
                raise LocalIOError(f"a unit of the fetch, {held.directory}, is not finished any more; run all parts again")
            if unit.segment is None:
                _move(root, manifest.files, held, lease)
            collected.add(unit, held, manifest)
    except BaseException:
        collected.release()
        raise
    return collected


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
