"""Open files safely: only regular files, and the same file again when a path is reopened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loader.errors import FileReplaced, MalformedCheckpoint, from_os_error


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """The identity of a file version. It changes when another file takes the path, or when the file is written to.

    `size` in bytes, `mtime_ns` in nanoseconds.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: int | str) -> FileIdentity:
        """Return the identity of an open descriptor or of a path. Raises OSError."""
        status = os.stat(file)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @classmethod
    def at(cls, path: str) -> FileIdentity:
        """Return the identity of the regular file at `path`. Raises the errors of `open_file`."""
        descriptor = open_file(path)
        try:
            return cls.of(descriptor)
        finally:
            os.close(descriptor)

    def open(self, path: str) -> int:
        """Return a descriptor of exactly this file; the caller closes it.

        Raises FileReplaced, and the errors of `open_file`.
        """
        descriptor = open_file(path)
        try:
            self.check(descriptor, path=path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """`open` as a context manager, which closes the descriptor."""
        descriptor = self.open(path)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def check(self, descriptor: int, *, path: str) -> None:
        """Raise FileReplaced if the open file has another identity than this one."""
        try:
            now = FileIdentity.of(descriptor)
        except OSError as error:
            raise from_os_error(error, doing="read the size", path=path) from error
        if now != self:
            raise FileReplaced(f"{path} was replaced or modified since it was first read; try again", path=path)


def open_file(path: str) -> int:
    """Return a descriptor for reading; the caller closes it.

    Raises NotFound, NotReadable, LocalIOError, and MalformedCheckpoint if it is not a regular file.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits until another process writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise from_os_error(error, doing="read the content", path=path) from error
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        os.set_blocking(descriptor, True)
    except OSError as error:
        os.close(descriptor)
        raise from_os_error(error, doing="read the size", path=path) from error
    if not regular:
        os.close(descriptor)
        raise MalformedCheckpoint("not a regular file; remove it, or name the file itself", path=path)
    return descriptor


def read_bytes(descriptor: int, count: int, offset: int, *, path: str) -> bytes:
    """Return exactly `count` bytes from byte `offset`. Raises FileReplaced if the file ends before, and LocalIOError."""
    pieces = []
    while count:
        try:
            piece = os.pread(descriptor, count, offset)
        except OSError as error:
            raise from_os_error(error, doing="read the content", path=path) from error
        if not piece:
            raise FileReplaced(f"{path} was truncated while it was read; try again", path=path)
        pieces.append(piece)
        count -= len(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
