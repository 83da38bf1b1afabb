"""Files as they are when they are opened: regular, and the same ones when they are opened again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loader.errors import FileReplaced, MalformedCheckpoint, from_os_error


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Equal as long as nobody renamed another file to the path (`device`, `inode`) or wrote into this one."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, place: int | str) -> FileIdentity:
        """Of what is open, or stands at a path. Raises OSError."""
        status = os.stat(place)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def at(cls, path: str) -> FileIdentity:
        """Of the regular file at `path`. Raises what `open_file` does."""
        descriptor = open_file(path)
        try:
            return cls.of(descriptor)
        finally:
            os.close(descriptor)

    def open(self, path: str) -> int:
        """A descriptor of the very file this was taken of; the caller closes it. Raises FileReplaced, and what `open_file`
        does."""
        descriptor = open_file(path)
        try:
            self.check(descriptor, path=path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """As `open`, closed at the end."""
        descriptor = self.open(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def check(self, descriptor: int, *, path: str) -> None:
        """Raises FileReplaced if what is open is not, or is no longer, what this was taken of."""
        try:
            now = FileIdentity.of(descriptor)
        except OSError as error:
            raise from_os_error(error, doing="look at the size", path=path) from error
        if now != self:
            raise FileReplaced(f"{path} was replaced or written to since it was first read; try again", path=path)


def open_file(path: str) -> int:
    """A descriptor to read from, which the caller closes.

    Raises NotFound, NotReadable, LocalIOError, and MalformedCheckpoint if it is no regular file.
    """
    try:
        # A FIFO would be waited for until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os_error(error, doing="open the content", path=path) from error
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        os.set_blocking(descriptor, True)
    except OSError as error:
        os.close(descriptor)
        raise from_os_error(error, doing="look at the size", path=path) from error
    if not regular:
        os.close(descriptor)
        raise MalformedCheckpoint("it is no regular file", path=path)
    return descriptor


def read_bytes(descriptor: int, count: int, offset: int, *, path: str) -> bytes:
    """Exactly `count` bytes, which the file had when its size was looked at. Raises FileReplaced, LocalIOError."""
    pieces = []
    while count:
        try:
            piece = os.pread(descriptor, count, offset)
        except OSError as error:
            raise from_os_error(error, doing="read the content", path=path) from error
        if not piece:
            raise FileReplaced(f"{path} became shorter while it was read; try again", path=path)
        pieces.append(piece)
        count -= len(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
