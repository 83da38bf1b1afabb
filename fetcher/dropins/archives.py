"""An archive that may be hostile, unpacked into a directory of one's own.

A name may lead elsewhere or come twice, a link may lead anywhere, a few kilobytes may hold a terabyte, and a header may claim
any length. What becomes of the members is `members`' business; here headers are read, none of which may be longer than it
needs to be, and damage is told from the end.
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

from fetcher.dropins.members import PIECE, Members
from fetcher.dropins.streams import BoundedFile, ForwardStream, Readable, XzStream
from fetcher.errors import MalformedArchive
from fetcher.filesystem import storing
from fetcher.store.beneath import open_beneath
from fetcher.store.layout import base_of

MEMBERS = 20_000
"""The most an archive may hold: a model has some hundreds, and tarfile keeps a kilobyte of each in memory."""
_PADDING = 4 * 1024 * 1024
"""Bytes that may follow the end of a tar; `tar` itself fills up to 10 KiB."""
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error,
    EOFError, IndexError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What the libraries raise for broken content. RuntimeError is zipfile's, for a member with a password or a compression it does
not know; IndexError too, for a member without a name."""


def unpack(archive: Path, directory: Path, *, stopped: Callable[[], bool]) -> Mapping[str, int]:
    """The sizes in bytes of the files that were unpacked, by their paths. Blocks. `directory` must be there, and empty.

    Raises MalformedArchive, HostilePath, OutOfSpace, StoreError; Stopped soon after `stopped()`.
    """
    into = Members(directory, stopped=stopped)
    with storing("unpack the archive", archive.name), _opened(archive) as file:
        try:
            (_unzip if _begins(file, b"PK") else _untar)(file, archive.name, into)
        except _BROKEN as error:
            raise _malformed(archive, error) from error
        except OSError as error:
            if error.errno is None:  # bz2's way to say that it can't read what it is given
                raise _malformed(archive, error) from error
            raise
        into.link()
    if not into.files:
        raise MalformedArchive(f"{archive.name} holds no files")
    return into.files


def _opened(archive: Path) -> IO[bytes]:
    return open(open_beneath(base_of(archive), archive, os.O_RDONLY), "rb")


def _begins(file: IO[bytes], beginning: bytes) -> bool:
    """How a file begins tells what it is; names lie."""
    found = file.read(len(beginning))
    file.seek(0)
    return found == beginning


def _malformed(archive: Path, error: Exception) -> MalformedArchive:
    what = " ".join(str(error).split()) or type(error).__name__
    return MalformedArchive(f"{archive.name} can't be unpacked: {what[:200]}; fetch it anew, else its publisher must mend it")


def _refuse_more(count: int) -> None:
    if count > MEMBERS:
        raise MalformedArchive(f"the archive has more than {MEMBERS:,} members")


def _unzip(file: IO[bytes], _: str, into: Members) -> None:
    with zipfile.ZipFile(BoundedFile(file)) as opened:
        _refuse_more(len(opened.infolist()))
        for member in opened.infolist():
            if not member.is_dir():
                with opened.open(member) as content:
                    into.add(member.filename, member.file_size, content)


def _untar(file: IO[bytes], name: str, into: Members) -> None:
    stream = ForwardStream(_decompressed(file))
    with tarfile.open(fileobj=stream, mode="r:") as opened:
        for count, member in enumerate(opened, 1):
            _refuse_more(count)
            _take(member, opened, into)
    if stream.last != bytes(tarfile.BLOCKSIZE):
        # tarfile takes a header that it can't read, and the end of the file, for the end of the archive.
        raise MalformedArchive(f"{name} ends without the mark of its end: it is damaged, or cut short")
    # To the end, where a compressed stream has its checksum.
    for _ in range(_PADDING // PIECE):
        if not stream.read(PIECE):
            return
    raise MalformedArchive(f"{name} goes on behind its end")


def _take(member: tarfile.TarInfo, opened: tarfile.TarFile, into: Members) -> None:
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
