"""What a cache root occupies: its artifacts, what is being built or removed, and replaced versions. Reads names and sizes only.

Sizes are allocated bytes, in the groups of `store.blocks`: an inode with several names counts once, and so do the blocks that
clones share. Where nothing was cloned, no file is opened for that.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fetcher.errors import NewerFormat
from fetcher.filesystem import first_names
from fetcher.manifest import RELATIVE_PATH
from fetcher.planning.eviction import Kept, Resident, occupied
from fetcher.store.archives import archives_of
from fetcher.store.blocks import Blocks, blocks_of
from fetcher.store.catalog import Entry, entries
from fetcher.store.claims import Claim, claims
from fetcher.store.layout import PRIVATE, Root
from fetcher.store.lease import Observation, observe
from fetcher.usage import last_used
from fetcher.values import dataclass

ROOM = "room"
"""The name of the root-wide lease. No cache key has it."""


_MOST = 100_000
"""Leases that are read at most."""


@dataclass(frozen=True, slots=True)
class Staged:
    """The staging directory of one key, and the archives beside it. `allocated`: bytes on the volume. `promised`: what they may
    grow to."""

    key: str
    lease: Observation
    allocated: int

    @property
    def promised(self) -> int:
        return self.allocated if self.lease.abandoned else max(self.allocated, self.lease.reserved)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """A root at one moment. `artifacts` are by `name_of`.

    Allocated bytes: `replaced` of replaced versions, `archives` of archives that nobody works with, `others` of our records.
    """

    artifacts: Mapping[str, Entry]
    residents: tuple[Resident, ...]
    staged: tuple[Staged, ...]
    replaced: int
    archives: int
    others: int

    @property
    def used(self) -> int:
        """Bytes that the root occupies, and those that living owners were promised."""
        promised = sum(each.promised for each in self.staged)
        return occupied(self.residents) + self.replaced + self.archives + self.others + promised

    @property
    def outstanding(self) -> int:
        """Bytes that living owners were promised and have not allocated yet."""
        return sum(each.promised - each.allocated for each in self.staged)

    @property
    def unfinished(self) -> int:
        """Bytes of fetches that ended too early, and can be resumed."""
        return self.archives + sum(each.allocated for each in self.staged if each.lease.abandoned)

    @property
    def evicting(self) -> bool:
        """Whether an artifact is being removed now, so that more space will be free soon."""
        return any(each.lease.evicting and not each.lease.abandoned for each in self.staged)


def occupancy(root: Path, *, now: float, min_idle: float, without: Collection[str] = (ROOM,)) -> Occupancy:
    """Survey `root`. `now` is in seconds since 1970 by the clock of its filesystem, `min_idle` in seconds.

    `without`: names of leases to leave out, such as that of the caller. Raises OSError.
    """
    # Staging first: an artifact that is placed meanwhile is counted twice, never not at all.
    staged = tuple(_staged(root, without))
    newer: list[str] = []

    def note(error: NewerFormat) -> None:
        newer.append(Path(error.path or "").parents[1].name)

    artifacts = {name_of(root, each): each for each in entries(root, on_newer=note)}
    records = claims(root)
    cloned = any(each.summary.shared for each in artifacts.values())
    leased = {each.key for each in staged if not each.lease.abandoned} | set(without)
    residents = [
        _resident(
            root, name, entry, records.get(entry.key, ()), leased=entry.key in leased, now=now, min_idle=min_idle, cloned=cloned
        )
        for name, entry in artifacts.items()
    ]
    residents += [Resident(key, allocated(root / key), now, "foreign") for key in newer if key]
    layout = Root(root)
    counted = {each.key for each in staged} | set(without)
    return Occupancy(
        artifacts,
        tuple(residents),
        staged,
        replaced=allocated_bytes(layout.old, layout.ready),
        archives=sum(allocated(layout.archive, without=counted).values()),
        others=allocated_bytes(layout.ballast),
    )


def name_of(root: Path, entry: Entry) -> str:
    """Return the name of an artifact among the residents: its key, if it has a directory of its own.

    In the layout of the Hub's cache the same request has the same key, and another place.
    """
    return entry.key if entry.path == root / entry.key else str(entry.record)


def allocated(directory: Path, *, without: Collection[str] = ()) -> Blocks:
    """Return the blocks of everything in `directory`; those of clones in full. What disappears meanwhile is skipped.

    `without`: names of directories in it to leave out. Follows no link.
    """
    blocks: Blocks = {}
    for path, status in _tree(directory, without):
        blocks |= blocks_of(status, path, extents=False)
    return blocks


def allocated_bytes(*directories: Path) -> int:
    """Return the bytes that everything in `directories` allocates. A file with names in several of them counts once."""
    blocks: Blocks = {}
    for each in directories:
        blocks |= allocated(each)
    return sum(blocks.values())


def built_bytes(lease: Path) -> int:
    """Return the bytes that everything under the lease at `lease` allocates: staged files, and archives beside them."""
    return allocated_bytes(lease, archives_of(lease))


def _tree(directory: Path, without: Collection[str] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative path and status of every file and link below `directory`."""
    for above, directories, names in os.walk(directory):
        if without and above == os.fspath(directory):
            directories[:] = [name for name in directories if name not in without]
        links = [name for name in directories if os.path.islink(os.path.join(above, name))]
        for name in (*names, *links):
            path = os.path.join(above, name)
            with suppress(OSError):
                yield os.path.relpath(path, directory), os.lstat(path)


def _resident(
    root: Path,
    name: str,
    entry: Entry,
    records: Collection[Claim],
    *,
    leased: bool,
    now: float,
    min_idle: float,
    cloned: bool,
) -> Resident:
    blocks, strangers = _contents(entry, cloned) if name == entry.key else (_listed(entry), True)
    used = last_used(root, entry.key)
    if used is None:
        used = _written(entry) or 0.0
    return Resident(name, blocks, used, _kept(records, leased, strangers, now - used < min_idle, now))


def _kept(records: Collection[Claim], leased: bool, strangers: bool, recent: bool, now: float) -> Kept | None:
    lasting = {each.kind for each in records if each.lasts(now)}
    reasons: tuple[tuple[bool, Kept], ...] = (
        ("pin" in lasting, "pinned"),
        (strangers, "foreign"),
        (leased, "leased"),
        ("hold" in lasting, "held"),
        (recent, "recent"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _contents(entry: Entry, cloned: bool) -> tuple[Blocks, bool]:
    """Return the blocks of a keyed artifact, and whether its directory also holds files of others or cannot be renamed."""
    blocks: Blocks = {}
    files = 0
    for path, status in _tree(entry.path):
        files += not path.startswith(f"{PRIVATE}/")
        blocks |= blocks_of(status, os.path.join(entry.path, path), extents=cloned)
    return blocks, files > entry.summary.files or os.path.ismount(entry.path)


def _listed(entry: Entry) -> Blocks:
    """Return the blocks of the files that the manifest lists, where the directory is not ours alone (a Hub cache)."""
    blocks: Blocks = {}
    for file in entry.manifest.files:
        with suppress(OSError):
            path = os.path.realpath(entry.path / file.path)
            if stat.S_ISREG((status := os.stat(path)).st_mode):
                blocks |= blocks_of(status, path, extents=False)
    return blocks


def _written(entry: Entry) -> float | None:
    with suppress(OSError):
        return os.stat(entry.path / RELATIVE_PATH).st_mtime
    return None


def _staged(root: Path, without: Collection[str]) -> Iterator[Staged]:
    staging = Root(root).staging
    try:
        names = first_names(staging, limit=_MOST)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name in without or name.startswith("tmp."):
            continue
        with suppress(OSError):
            if (lease := observe(staging / name)) is not None:
                yield Staged(name, lease, built_bytes(staging / name))
