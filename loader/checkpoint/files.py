"""Open files safely: only regular files, and the same file again when a path is reopened. `Files` is where they are."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from fetcher.values import dataclass
from loader.checkpoint.trees import below
from loader.errors import FileReplaced, MalformedCheckpoint, dangling, from_os_error

Read = Callable[[int, int], bytes]
"""`read(count, offset)` returns exactly so many bytes of an open file, or raises an error that names it."""


class Files(Protocol):
    """Where the files of a checkpoint are: on this machine (`LOCAL`), or at a source. Paths are joined with `/`."""

    def is_directory(self, path: str) -> bool:
        """Raises NotFound, NotReadable, LocalIOError."""

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, without hidden ones (macOS leaves `._model.safetensors`).

        Raises the errors of `is_directory`.
        """

    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    def why_missing(self, path: str) -> str:
        """Return the part of a message that tells why there is no file at `path`, or ""."""

    def below(self, directory: str) -> Iterable[str]:
        """Return the directories below `directory`."""

    def content(self, path: str, most: int) -> bytes:
        """Return a whole file. Raises MalformedCheckpoint for one above `most` bytes, and the errors of `open_file`."""


class LocalFiles:
    """The files of this machine."""

    def is_directory(self, path: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            raise from_os_error(error, doing="read the file type", path=path) from error

    def names(self, directory: str) -> list[str]:
        try:
            return [name for name in os.listdir(directory) if not name.startswith(".")]
        except OSError as error:
            raise from_os_error(error, doing="list the files", path=directory) from error

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def why_missing(self, path: str) -> str:
        return dangling(path)

    def below(self, directory: str) -> Iterable[str]:
        return below(directory)

    def content(self, path: str, most: int) -> bytes:
        descriptor = open_file(path)
        try:
            identity = FileIdentity.of(descriptor)
            refuse_larger(identity.size, most, path)
            content = read_bytes(descriptor, identity.size, 0, path=path)
            identity.check(descriptor, path=path)
        finally:
            os.close(descriptor)
        return content


LOCAL = LocalFiles()


def refuse_larger(size: int, most: int, path: str) -> None:
    """Raise MalformedCheckpoint for a file of `size` bytes that is larger than `most`."""
    if size > most:
        raise MalformedCheckpoint(f"{size} bytes exceed the limit of {most}", path=path)


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


def reading(descriptor: int, *, path: str) -> Read:
    """Return the `Read` of an open file. Raises the errors of `read_bytes`."""
    return partial(read_bytes, descriptor, path=path)


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
