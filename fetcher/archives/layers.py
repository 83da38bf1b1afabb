"""Unpack an archive, or several that lie over each other, like the layers of a container image.

Each layer is unpacked into a directory of its own, and a table says which file has a path in the end. So nothing that was
unpacked is ever replaced, and a link is an entry of the table: no link is created or followed on disk.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path

from fetcher.archives.members import Extraction
from fetcher.archives.reading import MEMBERS, Member, read_members
from fetcher.archives.streams import Readable
from fetcher.artifact import Digest
from fetcher.errors import MalformedArchive
from fetcher.filesystem import storing
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.store.beneath import make_directories, remove
from fetcher.store.layout import base_of
from fetcher.values import dataclass

IMAGE_MEMBERS = 1_000_000
"""Maximum members of a layer of an image: a base system with CUDA and Python has some 100,000."""
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
"""The image specification's marks: a file of lower layers is removed; a directory hides that of lower layers."""
_LINKS = 8
"""Maximum links between a path and its file."""


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file that was unpacked to `place`. `size` is in bytes."""

    place: Path
    size: int
    digest: Digest


@dataclass(slots=True)
class _Layer:
    """What one layer holds below the prefix: files, links to other paths, and what it removes of lower layers.

    Its files are written to `directory` by `extraction`.
    """

    directory: Path
    extraction: Extraction
    files: dict[str, UnpackedFile] = field(default_factory=dict)
    hard_links: dict[str, str] = field(default_factory=dict)
    symlinks: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    directories: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    """Those of all files and links."""


_Table = dict[str, UnpackedFile | str]
"""The file at a path, or the path that a symbolic link there leads to."""


def unpack_layers(
    archives: Sequence[Path],
    directory: Path,
    *,
    prefix: str = "",
    make_room: Callable[[int], None],
    stopped: Callable[[], bool],
) -> Mapping[str, UnpackedFile]:
    """Unpack `archives` in order and return their files by path. Blocks. `directory` must exist and be empty.

    With `prefix`, they are layers of an image: only members below it count, and a later layer replaces or removes files of
    earlier ones. Without, no path may occur twice. `make_room` is called with the size of each file before it is written.
    Raises what it raises; MalformedArchive, HostilePath, OutOfSpace, StoreError, ConfigurationError; Stopped soon after
    `stopped()`.
    """
    table: _Table = {}
    for number, archive in enumerate(archives):
        into = directory / str(number)
        make_directories(base_of(directory), into)
        layer = _Layer(into, Extraction(into, make_room=make_room, stopped=stopped))
        read_members(archive, partial(_take, layer=layer, prefix=prefix), most=IMAGE_MEMBERS if prefix else MEMBERS)
        if not prefix and (twice := table.keys() & layer.paths):
            raise MalformedArchive(f"two layers contain {min(twice)}; ask the publisher to fix it")
        lower, table = table, _over(table, layer)
        _remove_replaced(directory, {*lower.values(), *layer.files.values()} - {*table.values()})
    files = {path: _followed(table, path) for path in table}
    if not files:
        raise MalformedArchive(f"the archive holds no files{f' below {prefix}' if prefix else ''}; check the address")
    return files


def _remove_replaced(directory: Path, replaced: Iterable[UnpackedFile | str]) -> None:
    """Remove the files that no path leads to any more, so that their space is free before the next layer."""
    with storing("remove a file that a later layer replaces"):
        for entry in replaced:
            if isinstance(entry, UnpackedFile):
                remove(base_of(directory), entry.place)


def _take(member: Member, *, layer: _Layer, prefix: str) -> None:
    """Extract a member, or note what it says."""
    path = _below(member.name, prefix)
    if path is None:
        return
    name = posixpath.basename(path)
    if prefix and name.startswith(_WHITEOUT):
        parent = posixpath.dirname(path)
        layer.removed.append(parent if name == _OPAQUE else posixpath.join(parent, name.removeprefix(_WHITEOUT)))
        return
    if member.kind == "directory":
        layer.directories.add(path)
        return
    refuse_hostile_paths([path])
    if path in layer.paths:
        raise MalformedArchive(f"the archive contains {path} twice")
    layer.paths.add(path)
    if member.content is not None:
        hashed = _Hashing(member.content)
        layer.extraction.add(path, member.size, hashed)
        layer.files[path] = UnpackedFile(layer.directory / path, member.size, Digest("sha256", hashed.digest.hexdigest()))
    elif member.kind == "hard link":
        layer.hard_links[path] = _below(member.target, prefix) or member.target
    else:
        layer.symlinks[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), member.target))


class _Hashing:
    """A stream that hashes what is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _below(name: str, prefix: str) -> str | None:
    """The path of a member below `prefix`; None if it is outside. Names in images may begin with `/` or `./`.

    The mark that removes the directory of the prefix itself, or all of the root, is of the path below it too.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not prefix:
        return "/" * name.startswith("/") + "/".join(parts)
    root = prefix.strip("/")
    if parts in ([_WHITEOUT + root], [_OPAQUE]):
        return _OPAQUE
    return "/".join(parts[1:]) if parts[:1] == [root] and len(parts) > 1 else None


def _over(lower: _Table, layer: _Layer) -> _Table:
    """The table of `layer` over `lower`. A file hides a directory of lower layers, and a directory a file."""
    own: _Table = {**layer.files, **layer.symlinks}
    hidden = {*layer.removed, *own, *layer.hard_links}
    parents = layer.directories | {parent for path in hidden - set(layer.removed) for parent in _parents(path)}
    kept: _Table = {
        path: entry
        for path, entry in lower.items()
        if path not in parents and not hidden.intersection(("", path, *_parents(path)))
    }
    for path, target in layer.hard_links.items():
        own[path] = _linked(target, layer, {**lower, **own}, path)
    return kept | own


def _linked(target: str, layer: _Layer, table: _Table, path: str) -> UnpackedFile | str:
    """The entry that a hard link at `path` is: a link to a link of the same layer leads on."""
    for _ in range(_LINKS):
        if target not in layer.hard_links:
            break
        target = layer.hard_links[target]
    if target not in table:
        raise _no_file(path, target)
    return table[target]


def _followed(table: _Table, path: str) -> UnpackedFile:
    entry: UnpackedFile | str = table[path]
    for _ in range(_LINKS):
        if isinstance(entry, UnpackedFile):
            return entry
        if entry not in table:
            raise _no_file(path, entry)
        entry = table[entry]
    raise _no_file(path, str(table[path]))


def _no_file(path: str, target: str) -> MalformedArchive:
    return MalformedArchive(
        f"{path} is a link to {target[:120]!r}, which is not a file in the archive; ask the publisher to fix it"
    )


def _parents(path: str) -> Iterable[str]:
    """`a`, `a/b` of `a/b/c`."""
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))
