"""Read the members of an archive that may be hostile.

A few kilobytes can expand to a terabyte, and a header can claim any length. This module reads headers, limits their length, and
distinguishes a damaged archive from a complete one. `layers` decides what becomes of the members, `members` writes the files.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal

from fetcher.archives.members import PIECE
from fetcher.archives.streams import BoundedFile, ForwardStream, Readable, XzStream, zstd_stream
from fetcher.errors import MalformedArchive
from fetcher.filesystem import storing
from fetcher.store.beneath import open_beneath
from fetcher.store.layout import base_of
from fetcher.values import dataclass

MEMBERS = 20_000
"""Maximum members of an archive: a model has some hundreds."""
_PADDING = 4 * 1024 * 1024
"""Maximum bytes after the end of a tar; `tar` itself pads to 10 KiB."""
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error,
    EOFError, IndexError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""Errors that the libraries raise for broken content. zipfile raises RuntimeError for a member with a password or an unknown
compression, and IndexError for a member without a name."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive. `size`: of a file, in bytes. `content`: that of a file, to be read before the next member.

    `target`: what a link leads to, as the archive writes it.
    """

    name: str
    kind: Literal["file", "hard link", "symbolic link", "directory"]
    size: int = 0
    content: Readable | None = None
    target: str = ""


def read_members(archive: Path, take: Callable[[Member], None], *, most: int) -> None:
    """Call `take` for each member of `archive`, in order. Blocks.

    Raises MalformedArchive, also for more than `most` members; StoreError; and what `take` raises.
    """
    with storing("unpack the archive", archive.name), _opened(archive) as file:
        try:
            if _begins(file, b"PK"):
                _unzip(file, take, most)
            else:
                _untar(file, archive.name, take, most)
        except _BROKEN as error:
            raise _malformed(archive, error) from error
        except OSError as error:
            if error.errno is None:  # bz2 raises this for content that it cannot read
                raise _malformed(archive, error) from error
            raise


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


def _refuse_more(count: int, most: int) -> None:
    if count > most:
        raise MalformedArchive(f"the archive has more than {most:,} members")


def _unzip(file: IO[bytes], take: Callable[[Member], None], most: int) -> None:
    with zipfile.ZipFile(BoundedFile(file)) as opened:
        _refuse_more(len(opened.infolist()), most)
        for member in opened.infolist():
            if not member.is_dir():
                with opened.open(member) as content:
                    take(Member(member.filename, "file", member.file_size, content))


def _untar(file: IO[bytes], name: str, take: Callable[[Member], None], most: int) -> None:
    stream = ForwardStream(_decompressed(file))
    with tarfile.open(fileobj=stream, mode="r:") as opened:
        count = 0
        while (member := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member otherwise, a kilobyte each
            _refuse_more(count := count + 1, most)
            take(_member(member, opened))
    if stream.last != bytes(tarfile.BLOCKSIZE):
        # tarfile treats an unreadable header and the end of the file as the end of the archive.
        raise MalformedArchive(f"{name} is damaged or truncated: it has no end-of-archive marker; fetch it again")
    # Read to the end: a compressed stream has its checksum there.
    for _ in range(_PADDING // PIECE):
        if not stream.read(PIECE):
            return
    raise MalformedArchive(f"{name} has data after the end of the archive; ask the publisher to fix it")


def _member(member: tarfile.TarInfo, opened: tarfile.TarFile) -> Member:
    if member.isreg() and (content := opened.extractfile(member)) is not None:
        return Member(member.name, "file", member.size, content)
    if member.islnk():
        return Member(member.name, "hard link", target=member.linkname)
    if member.issym():
        return Member(member.name, "symbolic link", target=member.linkname)
    if member.isdir():
        return Member(member.name, "directory")
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
    if beginning.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd_stream(file)
    return file
