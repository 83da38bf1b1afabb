"""Files on this machine: `file://` and paths (copied into the cache), `pvc://` (verified where they are).

A directory with one of our manifests has digests; any other has none. A file that changes while it is read is detected by its
inode, size and modification time.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from fetcher.artifact import ArtifactRef, ByteRange, Digest, Listing, RemoteFile
from fetcher.errors import (
    ConfigurationError,
    ContentChanged,
    FetchError,
    NotFound,
    Unauthorized,
    Unreachable,
    UsageError,
    out_of_descriptors,
)
from fetcher.filesystem import mark
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.sources.addresses import meant_repository
from fetcher.sources.base import Asking, Body, Capabilities, DirectBody, Unmirrored, once
from fetcher.uncancelled import run_uncancelled

MOST_FILES = 1_000_000
"""Files of one directory tree at most: ten times the largest repositories of the Hub. `/`, given by mistake, has more."""


class LocalSource(Unmirrored):
    """A file, or all regular files below a directory. Symlinks to files are followed: Hub caches consist of them."""

    def __init__(self, path: Path, *, in_place: bool = False, listing: Listing | None = None) -> None:
        """`listing`, if known, replaces walking the directory: it tells which files and digests it should hold."""
        self._path = path
        self._in_place = in_place
        self._listing = listing

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=True, in_place=self._in_place)

    async def aclose(self) -> None:
        """Nothing to close."""

    def local_path(self, file: RemoteFile) -> Path | None:
        path = self._path if self._path.is_file() else self._path / file.path
        return path if path.is_file() else None

    async def resolve(self, ask: Asking = once) -> str | None:
        """A digest of all paths, sizes and modification times."""
        if self._listing is not None:
            return self._listing.revision
        files = await ask(self._listed)
        text = "\n".join(f"{file.path} {file.validator}" for file in files)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        if self._listing is not None:
            return self._listing
        files = await ask(self._listed)
        known = await run_uncancelled(self._manifest)
        return Listing(revision, tuple(files), authenticated=known is not None and known.authenticated)

    async def describe(self, files: Sequence[RemoteFile], ask: Asking = once) -> Sequence[RemoteFile]:
        return files

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        path = self.local_path(file)
        if path is None:
            raise NotFound(f"{file.path} is not in {self._path}", path=file.path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _classified(error, path) from error
        try:
            if file.validator is not None and mark(os.fstat(descriptor)) != file.validator:
                raise ContentChanged(f"{file.path} changed since it was listed", path=file.path)
            yield LocalBody(descriptor, file, byte_range or ByteRange(0, file.size or 0))
        finally:
            os.close(descriptor)

    async def _listed(self) -> Sequence[RemoteFile]:
        stopping = threading.Event()
        return await run_uncancelled(self._files, stopping, stop=stopping.set)

    def _files(self, stopping: threading.Event) -> Sequence[RemoteFile]:
        try:
            status = self._path.stat()
            if stat.S_ISREG(status.st_mode):
                return [RemoteFile(self._path.name, status.st_size, validator=mark(status))]
            if not stat.S_ISDIR(status.st_mode):
                raise NotFound(f"{self._path} is neither a file nor a directory")
            return self._tree(stopping)
        except OSError as error:
            raise _classified(error, self._path) from error

    def _manifest(self) -> Manifest | None:
        return Manifest.read(self._path / RELATIVE_PATH)

    def _tree(self, stopping: threading.Event) -> Sequence[RemoteFile]:
        known = self._manifest()
        files: list[RemoteFile] = []
        for path, status in _regular_files(self._path):
            if stopping.is_set():
                break  # the result is not used
            if len(files) == MOST_FILES:
                raise UsageError(f"{self._path} contains more than {MOST_FILES:,} files; give the model's own directory")
            relative = path.relative_to(self._path).as_posix()
            digests: tuple[Digest, ...] = ()
            if known and (entry := known.file(relative)) and entry.size == status.st_size:
                digests = entry.digests
            files.append(RemoteFile(relative, status.st_size, digests, mark(status)))
        if not files:
            raise NotFound(f"{self._path} contains no files")
        return files


class LocalBody:
    """A range of an open file. A change of the file is detected at the end of the range."""

    direct: DirectBody | None = None

    def __init__(self, descriptor: int, file: RemoteFile, byte_range: ByteRange) -> None:
        self._descriptor = descriptor
        self._file = file
        self._position = byte_range.start
        self._stop = byte_range.stop

    async def readinto(self, buffer: memoryview) -> int:
        if self._position == self._stop:
            # A file of a Hub cache has no validator, and is compared with its digest.
            if self._file.validator is not None and mark(os.fstat(self._descriptor)) != self._file.validator:
                raise ContentChanged(f"{self._file.path} changed while it was read", path=self._file.path)
            return 0
        count = await self._read(buffer[: self._stop - self._position])
        if not count:
            raise ContentChanged(f"{self._file.path} is shorter than when it was listed", path=self._file.path)
        self._position += count
        return count

    async def _read(self, buffer: memoryview) -> int:
        try:
            # Uncancelled: the buffer and the descriptor stay in use until the read ends.
            return await run_uncancelled(os.preadv, self._descriptor, [buffer], self._position)
        except OSError as error:
            raise _classified(error, Path(self._file.path)) from error


def open_local(ref: ArtifactRef) -> LocalSource:
    """The source of `file:///path` or a path. Raises UsageError, and NotFound for a Hub repository without `hf://`."""
    _refuse_revision(ref)
    if not ref.uri.lower().startswith("file://"):
        _refuse_repository(ref.uri)
        return LocalSource(Path(ref.uri))
    parts = urlsplit(ref.uri)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"file:// addresses have no host; write file:///{parts.netloc}{parts.path}")
    return LocalSource(Path(unquote(parts.path)))


def _refuse_repository(text: str) -> None:
    meant = meant_repository(text)
    if meant is not None and not os.path.lexists(text):
        raise NotFound(f"there is no file or directory {text}; did you mean {meant}?")


def open_claim(ref: ArtifactRef, settings: Settings) -> LocalSource:
    """The source of `pvc://claim/path`. Raises ConfigurationError, UsageError."""
    _refuse_revision(ref)
    claim, _, path = ref.uri[len("pvc://") :].partition("/")
    if claim not in settings.pvc_mounts:
        raise ConfigurationError(f"the mount point of claim {claim!r} is unknown; pass --pvc-mount {claim or 'CLAIM'}=DIR")
    if ".." in PurePosixPath(path).parts:
        raise UsageError("a pvc:// path cannot contain ..")
    return LocalSource(settings.pvc_mounts[claim] / path, in_place=True)


def _refuse_revision(ref: ArtifactRef) -> None:
    if ref.revision:
        raise UsageError("--revision is for the Hub; local files have no revision")


def _regular_files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for directory, names, files in os.walk(root, onerror=_raise):
        names[:] = sorted(name for name in names if name != ".fetcher")
        for name in sorted(files):
            path = Path(directory) / name
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise NotFound(f"{path} is not a regular file; a model directory may contain only regular files")
            yield path, status


def _raise(error: OSError) -> None:
    raise error


def _classified(error: OSError, path: Path) -> FetchError:
    if (exhausted := out_of_descriptors(error, doing=f"open {error.filename or path}")) is not None:
        return exhausted
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return NotFound(f"{error.filename or path} does not exist")
        case PermissionError():
            return Unauthorized(f"user {os.getuid()} is not allowed to read {error.filename or path}")
    return Unreachable(f"cannot read {error.filename or path}: {(error.strerror or str(error)).lower()}")
