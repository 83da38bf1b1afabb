"""What a cache root occupies on disk: `fetcher du`, and the blocks of one artifact in `fetcher show`.

Counts allocated blocks. An inode with several names counts once, and so do blocks that clones share, as far as the filesystem
shows them (xfs, btrfs). Where it does not, shared blocks count for each file: the account is never too small.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

from fetcher.cache.listing import Listed, Sorting, listed
from fetcher.errors import NewerFormat, NotFound
from fetcher.filesystem import storing
from fetcher.host.extents import shared_extents
from fetcher.store.catalog import Entry
from fetcher.store.layout import PRIVATE

Kind = Literal["artifact", "staging", "old", "archive", "other"]
_KINDS: dict[str, Kind] = {"staging": "staging", "old": "old", "ready": "old", "archive": "archive"}
_ORDER: list[Kind] = ["artifact", "staging", "old", "archive", "other"]


@dataclass(frozen=True, slots=True)
class Place:
    """The blocks of one directory with artifacts, or of everything of another kind. Sizes in bytes.

    `shared`: those of `allocated` that another file has too. `artifacts`: those whose files lie there.
    """

    kind: Kind
    name: str
    artifacts: tuple[Listed, ...]
    files: int
    allocated: int
    shared: int


@dataclass(frozen=True, slots=True)
class Occupation:
    """What a root occupies: `allocated` bytes, with what the places share counted once. `unread`: directories left out."""

    root: Path
    places: tuple[Place, ...]
    allocated: int
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Inode:
    """Allocated bytes, whether another name leads here, and the blocks (device, start, stop) that another file shares."""

    allocated: int
    linked: bool
    extents: tuple[tuple[int, int, int], ...]

    @property
    def shared(self) -> int:
        return self.allocated if self.linked else sum(stop - start for _, start, stop in self.extents)


_Inodes = dict[tuple[int, int], _Inode]


@dataclass(slots=True)
class _Found:
    files: int = 0
    inodes: _Inodes = field(default_factory=dict)


def occupation(root: Path, *, on_newer: Callable[[NewerFormat], None]) -> Occupation:
    """Return what the files below `root` occupy. Follows no link. Raises NotFound, StoreError.

    Calls `on_newer` for each artifact that a later version wrote; its files count as other ones.
    """
    if not root.is_dir():
        raise NotFound(f"{root} does not exist; pass the cache root with --cache-dir")
    owners: dict[str, list[Listed]] = defaultdict(list)
    for artifact in listed(root, on_newer=on_newer):
        owners[_top(root, artifact.entry)].append(artifact)
    found: dict[tuple[Kind, str], _Found] = defaultdict(_Found)
    unread: list[str] = []
    with storing("read the cache root"):
        for parts, name, directory in _names(root, unread):
            if (status := _status(name, directory)) is not None:
                each = found[_place((*parts, name), owners)]
                each.files += not stat.S_ISDIR(status.st_mode)
                each.inodes[status.st_dev, status.st_ino] = _inode(status, name, directory)
    places = tuple(
        Place(
            kind=kind,
            name=name,
            artifacts=tuple(owners[name]) if kind == "artifact" else (),
            files=each.files,
            allocated=_allocated(each.inodes),
            shared=_shared(each.inodes),
        )
        for (kind, name), each in found.items()
    )
    together: _Inodes = dict(chain.from_iterable(each.inodes.items() for each in found.values()))
    return Occupation(root, places, _allocated(together), tuple(unread))


def places_in_order(places: Iterable[Place], by: Sorting) -> tuple[Place, ...]:
    """Sort by name or URI, largest first, or least recently used first. Places without artifacts come last, except by size."""

    def order(place: Place) -> tuple[float, float, str, str]:
        size = -place.allocated if by == "size" else 0
        kind = 0 if by == "size" else _ORDER.index(place.kind)
        used = min((each.last_used or 0.0 for each in place.artifacts), default=0.0) if by == "used" else 0.0
        uri = min((each.entry.summary.uri for each in place.artifacts), default="") if by == "uri" else ""
        return kind, size + used, uri, place.name

    return tuple(sorted(places, key=order))


def occupied(entry: Entry) -> tuple[int, int]:
    """Return the allocated bytes of the artifact's files, and those of them that other files share. Skips missing files."""
    inodes: _Inodes = {}
    for file in entry.manifest.files:
        with suppress(OSError):
            path = os.path.realpath(entry.path / file.path)  # in the layout of the Hub's cache a file is a link to its blob
            status = os.lstat(path)
            inodes[status.st_dev, status.st_ino] = _inode(status, path, None)
    return _allocated(inodes), _shared(inodes)


def _allocated(inodes: _Inodes) -> int:
    """Return the allocated bytes of these inodes, with the blocks that they share counted once."""
    total, end = sum(each.allocated for each in inodes.values()), (-1, 0)
    for device, start, stop in sorted(extent for each in inodes.values() for extent in each.extents):
        last = end[1] if device == end[0] else 0
        total -= max(0, min(stop, last) - start)
        end = device, max(last, stop)
    return total


def _shared(inodes: _Inodes) -> int:
    return sum(each.shared for each in inodes.values())


def _top(root: Path, entry: Entry) -> str:
    """The name below the root under which the artifact lies: several may share one."""
    with suppress(ValueError):  # the record may name a snapshot elsewhere, or the root itself
        return next(iter(entry.path.relative_to(root).parts), "")
    return ""


def _place(parts: tuple[str, ...], owners: dict[str, list[Listed]]) -> tuple[Kind, str]:
    if parts[0] in owners:
        return "artifact", parts[0]
    kind = _KINDS.get(parts[1], "other") if parts[0] == PRIVATE and len(parts) > 1 else "other"
    return kind, kind


def _names(root: Path, unread: list[str]) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Yield each name below `root`: the parts of its directory, the name, and a descriptor of the directory."""

    def missed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            unread.append(str(error.filename))

    for path, directories, files, descriptor in os.fwalk(root, onerror=missed):
        parts = Path(path).relative_to(root).parts
        for name in (*directories, *files, *(() if parts else (".",))):
            yield parts, name, descriptor


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:  # removed meanwhile
        return None


def _inode(status: os.stat_result, name: str, directory: int | None) -> _Inode:
    file = stat.S_ISREG(status.st_mode)
    extents = _extents(status, name, directory) if file and status.st_blocks else ()
    return _Inode(status.st_blocks * 512, file and status.st_nlink > 1, extents)


def _extents(status: os.stat_result, name: str, directory: int | None) -> tuple[tuple[int, int, int], ...]:
    with suppress(OSError):  # a file that cannot be read, or a filesystem that does not say
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            return tuple((status.st_dev, start, stop) for start, stop in shared_extents(descriptor))
        finally:
            os.close(descriptor)
    return ()
