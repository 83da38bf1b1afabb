"""List the files of a directory to copy: by its manifest, which has the digest of every chunk, else by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fetcher.artifact import ByteRange
from fetcher.errors import DigestMismatch, NotFound, UsageError
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.quantities import ceil_div
from fetcher.values import dataclass
from loader.checkpoint.files import LOCAL, FileIdentity
from loader.checkpoint.locations import refuse_incomplete
from loader.checkpoint.not_weights import LARGEST_POINTER, refuse_pointer
from loader.errors import MalformedCheckpoint, from_os_error, shown

_HUB_MANIFESTS = Path(".fetcher") / "manifests"
_ABOVE_A_SNAPSHOT = 3
"""Directories from ROOT/models--org--name/snapshots/<revision> up to ROOT, where the manifests of that layout are."""

_LARGEST_CHUNK = 1 << 30
UNVERIFIED_CHUNK = 16 * 1024 * 1024
"""Bytes of a chunk without a manifest. A manifest has its own chunk size."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file below the directory; `digests` has the XXH3-128 of each chunk of `chunk_size` bytes, or is empty if unknown."""

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
"""The items that are names of the same file."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """The files of the directory `root`; `manifest` is None if there is none."""

    root: Path
    items: tuple[Item, ...]
    manifest: Manifest | None

    @property
    def contents(self) -> tuple[Names, ...]:
        """The items grouped by file. A Hub cache has one blob under many names: in `blobs`, and in each snapshot."""
        files: dict[tuple[object, ...], list[Item]] = {}
        for item in self.items:
            files.setdefault((item.identity, item.digests), []).append(item)
        return tuple(map(tuple, files.values()))

    @property
    def size(self) -> int:
        """Bytes of all files. A file with several names counts once."""
        return sum(names[0].size for names in self.contents)


def read_artifact(root: Path) -> Artifact:
    """List the files of the directory.

    Raises UsageError, NotFound, NotReadable, LocalIOError, MalformedCheckpoint, and DigestMismatch if the size of a file
    differs from the manifest.
    """
    if not LOCAL.is_directory(str(root)):
        raise UsageError(f"{root} is not a directory; give the directory of the artifact")
    manifest = _manifest(root)
    if manifest is None:
        items = tuple(Item(path, _checked(root, path), UNVERIFIED_CHUNK, ()) for path in _names(root))
        refuse_incomplete(str(root), [item.path for item in items])
    else:
        items = tuple(_listed(root, file, manifest.chunk_size) for file in manifest.files)
    if not items:
        raise NotFound(f"{root} has no files; give the directory of the artifact", path=str(root))
    return Artifact(root, items, manifest)


def _manifest(root: Path) -> Manifest | None:
    """Read the manifest in the directory, or in the Hub cache if the directory is a snapshot."""
    path = root / RELATIVE_PATH
    if path.exists():
        if (manifest := Manifest.read(path)) is None:
            raise MalformedCheckpoint("not a valid manifest; fetch the artifact again", path=str(path))
        return manifest
    real = Path(os.path.realpath(root))
    for cache in real.parents[:_ABOVE_A_SNAPSHOT]:
        for candidate in sorted((cache / _HUB_MANIFESTS).glob("*.json")):
            manifest = Manifest.read(candidate)
            if manifest is not None and manifest.snapshot is not None and cache / manifest.snapshot == real:
                return replace(manifest, snapshot=None)
    return None


def _listed(root: Path, file: ManifestFile, chunk_size: int) -> Item:
    manifest = str(root / RELATIVE_PATH)
    if not 0 < chunk_size <= _LARGEST_CHUNK:
        problem = f"{shown(chunk_size)} bytes is not a possible chunk size; fetch the artifact again"
        raise MalformedCheckpoint(problem, path=manifest, field="chunk_size")
    if any(part in ("", ".", "..", ".fetcher") or "\0" in part for part in file.path.split("/")):
        problem = "not a path of an artifact's file; fetch the artifact again"
        raise MalformedCheckpoint(problem, path=manifest, field=shown(file.path))
    item = Item(file.path, _identity(root, file.path), chunk_size, file.chunks)
    if item.size != file.size:
        problem = f"{file.path} has {item.size:,} bytes instead of {file.size:,}; fetch the artifact again"
        raise DigestMismatch(problem, path=file.path)
    if item.chunks != len(item.digests):
        problem = f"{len(item.digests)} digests, but the file has {item.chunks} chunks; fetch the artifact again"
        raise MalformedCheckpoint(problem, path=manifest, field=shown(file.path))
    return item


def _checked(root: Path, path: str) -> FileIdentity:
    """Return the identity of a file. Raises MalformedCheckpoint for a Git LFS pointer, which no other check would notice."""
    identity = _identity(root, path)
    if identity.size < LARGEST_POINTER:
        refuse_pointer(str(root / path))
    return identity


def _identity(root: Path, path: str) -> FileIdentity:
    return FileIdentity.at(str(root / path))


def _names(root: Path, below: str = "") -> Iterator[str]:
    """Yield the regular files, and links to them: a snapshot of a Hub cache has only links.

    Hidden files are left out (`.git` has the weights again, `.cache` belongs to a downloader). Links to directories are left
    out because they may lead back up.
    """
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
