"""Unpack an archive that may be hostile into an empty directory.

A name can point outside the directory or occur twice, a link can point anywhere, a few kilobytes can expand to a terabyte, and
a header can claim any length. This module reads headers, limits their length, and distinguishes a damaged archive from a
complete one. `members` writes the files.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from fetcher.dropins.members import PIECE, Extraction
from fetcher.dropins.streams import BoundedFile, ForwardStream, Readable, XzStream
from fetcher.errors import MalformedArchive
from fetcher.filesystem import storing
from fetcher.store.beneath import open_beneath
from fetcher.store.layout import base_of

MEMBERS = 20_000
"""Maximum members of an archive: a model has some hundreds, and tarfile keeps a kilobyte of each in memory."""
_PADDING = 4 * 1024 * 1024
"""Maximum bytes after the end of a tar; `tar` itself pads to 10 KiB."""
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error,
    EOFError, IndexError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""Errors that the libraries raise for broken content. zipfile raises RuntimeError for a member with a password or an unknown
compression, and IndexError for a member without a name."""


def unpack(archive: Path, directory: Path, *, stopped: Callable[[], bool]) -> Mapping[str, int]:
    """Unpack `archive` and return the size in bytes of each file, by path. Blocks. `directory` must exist and be empty.

    Raises MalformedArchive, HostilePath, OutOfSpace, StoreError; Stopped soon after `stopped()`.
    """
    into = Extraction(directory, stopped=stopped)
    with storing("unpack the archive", archive.name), _opened(archive) as file:
        try:
            (_unzip if _begins(file, b"PK") else _untar)(file, archive.name, into)
        except _BROKEN as error:
            raise _malformed(archive, error) from error
        except OSError as error:
            if error.errno is None:  # bz2 raises this for content that it cannot read
                raise _malformed(archive, error) from error
            raise
        into.link()
    if not into.files:
        raise MalformedArchive(f"{archive.name} holds no files")
    return into.files


def _opened(archive: Path) -> IO[bytes]:
    return open(open_beneath(base_of(archive), archive, os.O_RDONLY), "rb")


def _begins(file: IO[bytes], beginning: bytes) -> bool:
    """Tell whether `file` starts with `beginning`. The name of an archive does not prove its type."""
    start = file.read(len(beginning))
    file.seek(0)
    return start == beginning


def _malformed(archive: Path, error: Exception) -> MalformedArchive:
    what = " ".join(str(error).split()) or type(error).__name__
    return MalformedArchive(f"{archive.name} cannot be unpacked: {what[:200]}; fetch it again, or ask the publisher to fix it")


def _refuse_more(count: int) -> None:
    if count > MEMBERS:
        raise MalformedArchive(f"the archive has more than {MEMBERS:,} members")


def _unzip(file: IO[bytes], _: str, into: Extraction) -> None:
    with zipfile.ZipFile(BoundedFile(file)) as opened:
        _refuse_more(len(opened.infolist()))
        for member in opened.infolist():
            if not member.is_dir():
                with opened.open(member) as content:
                    into.add(member.filename, member.file_size, content)


def _untar(file: IO[bytes], name: str, into: Extraction) -> None:
    stream = ForwardStream(_decompressed(file))
    with tarfile.open(fileobj=stream, mode="r:") as opened:
        for count, member in enumerate(opened, 1):
            _refuse_more(count)
            _extract(member, opened, into)
    if stream.last != bytes(tarfile.BLOCKSIZE):
        # tarfile treats an unreadable header and the end of the file as the end of the archive.
        raise MalformedArchive(f"{name} is damaged or truncated: it has no end-of-archive marker; fetch it again")
    # Read to the end: a compressed stream has its checksum there.
    for _ in range(_PADDING // PIECE):
        if not stream.read(PIECE):
            return
    raise MalformedArchive(f"{name} has data after the end of the archive; ask the publisher to fix it")


def _extract(member: tarfile.TarInfo, opened: tarfile.TarFile, into: Extraction) -> None:
    if member.isreg() and (content := opened.extractfile(member)) is not None:
        into.add(member.name, member.size, content)
    elif member.islnk():
        into.note_link(member.name, member.linkname)
    elif member.issym():
        target = posixpath.join(posixpath.dirname(member.name), member.linkname)
        into.note_link(member.name, posixpath.normpath(target))
    elif not member.isdir():
        raise MalformedArchive(f"{member.name[:120]!r} in the archive is not a file, directory or link")


def _decompressed(file: IO[bytes]) -> Readable:
    """Return the decompressed content of `file`. Its first bytes decide the format."""
    beginning = file.read(6)
    file.seek(0)
    if beginning.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if beginning.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if beginning == b"\xfd7zXZ\x00":
        return XzStream(file)
    return file
