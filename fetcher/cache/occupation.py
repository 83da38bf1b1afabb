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
from dataclasses import field
from itertools import chain
from pathlib import Path
from typing import Literal

from fetcher.cache.listing import Listed, Sorting, listed
from fetcher.errors import NewerFormat, NotFound
from fetcher.filesystem import storing
from fetcher.store.blocks import Blocks, blocks_of, shared_bytes
from fetcher.store.catalog import Entry
from fetcher.store.layout import PRIVATE
from fetcher.values import dataclass

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


@dataclass(slots=True)
class _Found:
    files: int = 0
    blocks: Blocks = field(default_factory=dict)


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
                each.blocks |= blocks_of(status, name, directory=directory)
    places = tuple(
        Place(
            kind=kind,
            name=name,
            artifacts=tuple(owners[name]) if kind == "artifact" else (),
            files=each.files,
            allocated=sum(each.blocks.values()),
            shared=shared_bytes(each.blocks),
        )
        for (kind, name), each in found.items()
    )
    together = dict(chain.from_iterable(each.blocks.items() for each in found.values()))
    return Occupation(root, places, sum(together.values()), tuple(unread))


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
    blocks: Blocks = {}
    for file in entry.manifest.files:
        with suppress(OSError):
            path = os.path.realpath(entry.path / file.path)  # in the layout of the Hub's cache a file is a link to its blob
            blocks |= blocks_of(os.lstat(path), path)
    return sum(blocks.values()), shared_bytes(blocks)


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
