"""The archives of a packed artifact: fetched and unpacked beside its lease, and removed only by who holds that lease.

::

    staging/<name>/             the lease
    archive/<name>/fetched/     the archives, an artifact of their own with a staging of its own; resumable
    archive/<name>/unpacked/    their files, until these are staged. What a killed process leaves of them is of no use

A removal renames into the data of the lease first. So a process that lost the lease without noticing removes nothing of its
successor.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from fetcher.errors import LeaseError, NewerFormat
from fetcher.filesystem import first_names
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.store.beneath import remove_directory, remove_tree, rename
from fetcher.store.contender import Contender
from fetcher.store.layout import Root, base_of
from fetcher.store.lease import Lease, observe
from fetcher.values import dataclass

_MOST = 100_000
"""Names that are read at most."""


def archives_of(lease: Path) -> Path:
    """Return the directory for the archives that are fetched under the lease at `lease`, `staging/<name>`."""
    return Root(lease.parents[2]).archive / lease.name


def fetched_in(archives: Path) -> Path:
    """Return the directory for the fetched archives."""
    return archives / "fetched"


def unpacked_in(archives: Path) -> Path:
    """Return the directory for the unpacked files."""
    return archives / "unpacked"


def discard(lease: Lease, directory: Path) -> None:
    """Remove `directory`, all or a part of the archives of `lease`, if it exists. Raises LeaseLost, OSError."""
    base, doomed = base_of(lease.data), lease.data / f"discarded-{uuid.uuid4().hex}"
    with suppress(FileNotFoundError), lease.fenced():
        rename(base, directory, base, doomed)
        remove_tree(base, doomed)


def remove_archives(lease: Path) -> bool:
    """Remove the archives of the lease at `lease`, unless a living process holds it. Return whether they are gone.

    Raises OSError, LeaseLost, NewerFormat.
    """
    archives = archives_of(lease)
    return not os.path.lexists(archives) or _discarded(lease, archives)


def forget_empty(lease: Path) -> None:
    """Remove the directories for leases and archives, if they are empty: a destination has no others."""
    for each in (archives_of(lease).parent, lease.parent):
        with suppress(OSError):
            remove_directory(base_of(lease), each)


@dataclass(frozen=True, slots=True)
class Useless:
    """What a killed process left in `directory`, and nobody can go on with. `why`: one clause."""

    lease: Path
    directory: Path
    why: str

    def remove(self) -> bool:
        """Remove it, unless a living process has the lease by now. Return whether it is gone. Raises as `remove_archives`."""
        return _discarded(self.lease, self.directory)


def useless(root: Path) -> list[Useless]:
    """Return the archives of complete artifacts, and the unpacked files of others, beside leases that nobody holds."""
    layout = Root(root)
    found = []
    for name in names_in(layout.archive):
        lease, archives = layout.staging / name, layout.archive / name
        with suppress(OSError, NewerFormat):
            if (seen := observe(lease)) is not None and not seen.abandoned:
                continue
            if _are_placed(archives, root / name):
                found.append(Useless(lease, archives, "their artifact is complete"))
            elif os.path.lexists(unpacked_in(archives)):
                found.append(Useless(lease, unpacked_in(archives), "their process ended, and the next one unpacks anew"))
    return found


def sweep_useless(root: Path) -> None:
    """Remove what is `useless`, as far as possible. Other archives stay resumable."""
    for each in useless(root):
        with suppress(OSError, LeaseError, NewerFormat):
            each.remove()


def _are_placed(archives: Path, artifact: Path) -> bool:
    """Whether `artifact` is complete at the revision of the fetched archives. Raises OSError, NewerFormat."""
    packed, placed = (Manifest.read(each / RELATIVE_PATH) for each in (fetched_in(archives), artifact))
    return packed is not None and placed is not None and packed.revision is not None and packed.revision == placed.revision


def names_in(directory: Path) -> list[str]:
    """Return the names in `directory`; none if it does not exist. Raises OSError."""
    try:
        return sorted(first_names(directory, limit=_MOST))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _discarded(lease: Path, directory: Path) -> bool:
    """Remove `directory` under the lease at `lease`, if that is free or its owner is gone."""
    contender = Contender(lease.parent, lease.name, stale=float("inf"))
    if not isinstance(taken := contender.attempt(), Lease):
        return False
    try:
        discard(taken, directory)
    finally:
        contender.give_back(taken)
    return not os.path.lexists(directory)
