"""An archive that may be hostile, unpacked into a directory of one's own.

A name may lead elsewhere or come twice, a link may lead anywhere, a few kilobytes may hold a terabyte, and a header may claim
any length. So nothing is written but plain files under names that were checked; a link becomes another name of the member it
means, and any other link is refused; what is written is counted before against the free space; headers have a longest length.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fetcher.dropins.streams import BoundedFile, ForwardStream, Readable, XzStream
from fetcher.errors import MalformedArchive, OutOfSpace
from fetcher.filesystem import allow, file_mode, free_bytes, make_directory, storing
from fetcher.planning.paths import refuse_hostile_paths

MEMBERS = 20_000
"""The most an archive may hold: a model has some hundreds, and tarfile keeps a kilobyte of each in memory."""
_PIECE = 1024 * 1024
_LINKS = 8
"""How many links may lead to one another before a file is reached."""
_PADDING = 4 * 1024 * 1024
"""Bytes that may follow the end of a tar; `tar` itself fills up to 10 KiB."""
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error,
    EOFError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What the libraries raise for broken content. RuntimeError is zipfile's, for a member with a password or a compression it does
not know."""


class Stopped(Exception):
    """The one who waits for it has been cancelled."""


@dataclass(frozen=True, slots=True)
class Contents:
    """How many files were unpacked, and their bytes together."""

    files: int
    bytes: int


def unpack(archive: Path, directory: Path, *, stopped: Callable[[], bool]) -> Contents:
    """Blocks. `directory` must be there, and empty.

    Raises MalformedArchive, HostilePath, OutOfSpace, StoreError; Stopped soon after `stopped()`.
    """
    into = Unpacker(directory, stopped=stopped)
    with storing("unpack the archive", archive.name):
        try:
            (_unzip if _begins(archive, b"PK") else _untar)(archive, into)
        except _BROKEN as error:
            raise _malformed(archive, error) from error
        except OSError as error:
            if error.errno is None:  # bz2's way to say that it can't read what it is given
                raise _malformed(archive, error) from error
            raise
        into.link()
    if not into.files:
        raise MalformedArchive(f"{archive.name} holds no files")
    return Contents(len(into.files), sum(into.files.values()))


class Unpacker:
    """What was taken out so far, and how much more may be."""

    def __init__(self, directory: Path, *, stopped: Callable[[], bool]) -> None:
        self.files: dict[str, int] = {}
        self.stopped = stopped
        self._links: dict[str, str] = {}
        self._directory = directory
        self._left = free_bytes(directory)
        self._mode = file_mode(directory)

    def add(self, name: str, size: int, content: Readable) -> None:
        """A regular file of `size` bytes."""
        path = self._admitted(name)
        self._reserve(path, size)
        with self._created(path) as file:
            left = size
            while left:
                if self.stopped():
                    raise Stopped
                piece = content.read(min(_PIECE, left))
                if not piece:
                    raise MalformedArchive(f"the archive ends in the middle of {path}")
                file.write(piece)
                left -= len(piece)
        self.files[path] = size

    def note_link(self, name: str, target: str) -> None:
        """A link to the member `target`, which may come later."""
        self._links[self._admitted(name)] = _plain(target)

    def link(self) -> None:
        """Make the links that were noted into further names of what they mean."""
        for path in self._links:
            target = self._meant(path)
            source, new = self._directory / target, self._directory / path
            make_directory(new.parent)
            try:
                os.link(source, new)
            except OSError:
                self._reserve(path, self.files[target])
                with source.open("rb") as reader, self._created(path) as writer:
                    shutil.copyfileobj(reader, writer, _PIECE)
            self.files[path] = self.files[target]

    def _meant(self, path: str) -> str:
        target = path
        for _ in range(_LINKS):
            target = self._links.get(target, target)
            if target in self.files:
                return target
        raise MalformedArchive(f"{path} is a link to {self._links[path][:120]!r}, which is no file of the archive")

    def _admitted(self, name: str) -> str:
        path = _plain(name)
        refuse_hostile_paths([path])
        if path in self.files or path in self._links:
            raise MalformedArchive(f"the archive holds {path} twice")
        return path

    def _reserve(self, path: str, size: int) -> None:
        if size < 0:
            raise MalformedArchive(f"{path} of the archive has a size below zero")
        if self._left is None:
            return
        self._left -= size
        if self._left < 0:
            raise OutOfSpace(
                f"no space left on device: {path} of the archive has {size:,} bytes, {-self._left:,} more than are free; "
                "free space or use a larger volume"
            )

    def _created(self, path: str) -> IO[bytes]:
        target = self._directory / path
        try:
            make_directory(target.parent)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise MalformedArchive(f"the archive holds {path} twice, or a file in the place of its directory") from error
        allow(target, self._mode)
        return file


def _plain(name: str) -> str:
    """`./a//b` → `a/b`, as `tar -C DIR .` writes names; what is absolute or leads upwards stays that."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/" * name.startswith("/") + "/".join(parts)


def _begins(archive: Path, beginning: bytes) -> bool:
    """How a file begins tells what it is; names lie."""
    with archive.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _malformed(archive: Path, error: Exception) -> MalformedArchive:
    what = " ".join(str(error).split()) or type(error).__name__
    return MalformedArchive(f"{archive.name} can't be unpacked: {what[:200]}; fetch it anew, else its publisher must mend it")


def _refuse_more(count: int) -> None:
    if count > MEMBERS:
        raise MalformedArchive(f"the archive has more than {MEMBERS:,} members")


def _unzip(archive: Path, into: Unpacker) -> None:
    with archive.open("rb") as file, zipfile.ZipFile(BoundedFile(file)) as opened:
        _refuse_more(len(opened.infolist()))
        for member in opened.infolist():
            if not member.is_dir():
                with opened.open(member) as content:
                    into.add(member.filename, member.file_size, content)


def _untar(archive: Path, into: Unpacker) -> None:
    with archive.open("rb") as file:
        stream = ForwardStream(_decompressed(file))
        with tarfile.open(fileobj=stream, mode="r:") as opened:
            for count, member in enumerate(opened, 1):
                _refuse_more(count)
                _take(member, opened, into)
        if stream.last != bytes(tarfile.BLOCKSIZE):
            # tarfile takes a header that it can't read, and the end of the file, for the end of the archive.
            raise MalformedArchive(f"{archive.name} ends without the mark of its end: it is damaged, or cut short")
        # To the end, where a compressed stream has its checksum.
        for _ in range(_PADDING // _PIECE):
            if not stream.read(_PIECE):
                return
    raise MalformedArchive(f"{archive.name} goes on behind its end")


def _take(member: tarfile.TarInfo, opened: tarfile.TarFile, into: Unpacker) -> None:
    if member.isreg() and (content := opened.extractfile(member)) is not None:
        into.add(member.name, member.size, content)
    elif member.islnk():
        into.note_link(member.name, member.linkname)
    elif member.issym():
        target = posixpath.join(posixpath.dirname(member.name), member.linkname)
        into.note_link(member.name, posixpath.normpath(target))
    elif not member.isdir():
        raise MalformedArchive(f"{member.name[:120]!r} of the archive is neither a file, a directory nor a link")


def _decompressed(file: IO[bytes]) -> Readable:
    """What is in `file`, by how it begins."""
    beginning = file.read(6)
    file.seek(0)
    if beginning.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if beginning.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if beginning == b"\xfd7zXZ\x00":
        return XzStream(file)
    return file
