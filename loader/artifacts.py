"""What a directory consists of, for copying it: by its manifest, which vouches for every chunk, else by its names alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fetcher.artifact import ByteRange
from fetcher.errors import DigestMismatch, NotFound, UsageError
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.quantities import ceil_div
from loader.errors import MalformedCheckpoint, from_os_error, shown
from loader.files import FileIdentity
from loader.impostors import LARGEST_POINTER, refuse_pointer
from loader.locations import is_directory, refuse_incomplete

_HUB_MANIFESTS = Path(".fetcher") / "manifests"
_ABOVE_A_SNAPSHOT = 3
"""Directories from ROOT/models--org--name/snapshots/<revision> up to ROOT, where the manifests of that layout are."""

_LARGEST_CHUNK = 1 << 30
UNVERIFIED_CHUNK = 16 * 1024 * 1024
"""Bytes copied at a time where there is no manifest; with one, it says."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file below the directory; `digests` has XXH3-128 of each `chunk_size` bytes, or nothing where nobody knows."""

    path: str
    identity: FileIdentity
    chunk_size: int
    digests: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.identity.size

    @property
    def chunks(self) -> int:
        return ceil_div(self.size, self.chunk_size)

    def chunk(self, index: int) -> ByteRange:
        return ByteRange(index * self.chunk_size, min((index + 1) * self.chunk_size, self.size))


Names = tuple[Item, ...]
"""The items that are names of one file."""


@dataclass(frozen=True, slots=True)
class Artifact:
    root: Path
    items: tuple[Item, ...]
    manifest: Manifest | None

    @property
    def contents(self) -> tuple[Names, ...]:
        """The items by file. A Hub cache has one blob under many names: in `blobs`, and in each snapshot."""
        found: dict[tuple[object, ...], list[Item]] = {}
        for item in self.items:
            found.setdefault((item.identity, item.digests), []).append(item)
        return tuple(map(tuple, found.values()))

    @property
    def size(self) -> int:
        """Bytes, of a file with several names once."""
        return sum(names[0].size for names in self.contents)


def read_artifact(root: Path) -> Artifact:
    """Raises UsageError, NotFound, NotReadable, LocalIOError, MalformedCheckpoint, and DigestMismatch for a file that does not
    have the size that its manifest says."""
    if not is_directory(str(root)):
        raise UsageError(f"{root} is no directory; name the one that holds the artifact")
    manifest = _manifest(root)
    if manifest is None:
        items = tuple(Item(path, _sound(root, path), UNVERIFIED_CHUNK, ()) for path in _names(root))
        refuse_incomplete(str(root), [item.path for item in items])
    else:
        items = tuple(_listed(root, file, manifest.chunk_size) for file in manifest.files)
    if not items:
        raise NotFound(f"{root} holds no files", path=str(root))
    return Artifact(root, items, manifest)


def _manifest(root: Path) -> Manifest | None:
    """In the directory itself, or with those of the Hub cache that it is a snapshot of."""
    path = root / RELATIVE_PATH
    if path.exists():
        if (manifest := Manifest.read(path)) is None:
            raise MalformedCheckpoint("it is no manifest of this version; fetch the artifact again", path=str(path))
        return manifest
    real = Path(os.path.realpath(root))
    for cache in real.parents[:_ABOVE_A_SNAPSHOT]:
        for candidate in sorted((cache / _HUB_MANIFESTS).glob("*.json")):
            found = Manifest.read(candidate)
            if found is not None and found.snapshot is not None and cache / found.snapshot == real:
                return replace(found, snapshot=None)
    return None


def _listed(root: Path, file: ManifestFile, chunk_size: int) -> Item:
    manifest = str(root / RELATIVE_PATH)
    if not 0 < chunk_size <= _LARGEST_CHUNK:
        raise MalformedCheckpoint(f"chunks of {shown(chunk_size)} bytes", path=manifest, field="chunk_size")
    if any(part in ("", ".", "..", ".fetcher") or "\0" in part for part in file.path.split("/")):
        raise MalformedCheckpoint("a path that is no file of an artifact", path=manifest, field=shown(file.path))
    item = Item(file.path, _identity(root, file.path), chunk_size, file.chunks)
    if item.size != file.size:
        raise DigestMismatch(f"{file.path} has {item.size:,} bytes instead of {file.size:,}; fetch it again", path=file.path)
    if item.chunks != len(item.digests):
        problem = f"{len(item.digests)} chunks of {chunk_size} bytes for {item.size}"
        raise MalformedCheckpoint(problem, path=manifest, field=shown(file.path))
    return item


def _sound(root: Path, path: str) -> FileIdentity:
    """Raises MalformedCheckpoint for a Git LFS pointer, which nothing else would notice here."""
    identity = _identity(root, path)
    if identity.size < LARGEST_POINTER:
        refuse_pointer(str(root / path))
    return identity


def _identity(root: Path, path: str) -> FileIdentity:
    return FileIdentity.at(str(root / path))


def _names(root: Path, below: str = "") -> Iterator[str]:
    """Regular files, links to them included (a Hub cache's snapshot has nothing else); nothing hidden (`.git` holds all weights
    once more, `.cache` is a downloader's), and no directory that is a link, since it may lead back up."""
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
        for entry in entries:
            path = f"{below}/{entry.name}".lstrip("/")
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _names(root, path)
            elif stat.S_ISREG(entry.stat().st_mode):
                yield path
    except OSError as error:
        raise from_os_error(error, doing="list the files", path=error.filename or str(root / below)) from error
