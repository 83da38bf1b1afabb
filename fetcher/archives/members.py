"""Write the members of an archive as plain files below one directory, with checked names, within the free space.

No symbolic link below the root of the directory is followed: another user of the volume can plant one at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fetcher.archives.streams import Readable
from fetcher.errors import MalformedArchive, OutOfSpace
from fetcher.filesystem import file_mode, free_bytes, try_chmod
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.store.beneath import make_directories, open_beneath
from fetcher.store.layout import base_of
from fetcher.uncancelled import Stopped

PIECE = 1024 * 1024
"""Bytes of one read or write."""


class Extraction:
    """The unpacked files (`files`: sizes in bytes, by path) and the remaining free space. Methods also raise OSError.

    `make_room` is called with the size of each file before it is written; what it raises ends the extraction.
    """

    def __init__(self, directory: Path, *, make_room: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        self.files: dict[str, int] = {}
        self.stopped = stopped
        self._make_room = make_room
        self._directory = directory
        self._base = base_of(directory)
        self._free = free_bytes(directory)
        self._mode = file_mode(directory)

    def add(self, name: str, size: int, content: Readable) -> None:
        """Write a regular file of `size` bytes. Raises MalformedArchive, HostilePath, OutOfSpace, Stopped."""
        path = self._admitted(name)
        self._reserve(path, size)
        with self._created(path) as file:
            remaining = size
            while remaining:
                if self.stopped():
                    raise Stopped
                piece = content.read(min(PIECE, remaining))
                if not piece:
                    raise MalformedArchive(f"the archive ends in the middle of {path}")
                file.write(piece)
                remaining -= len(piece)
        self.files[path] = size

    def _admitted(self, name: str) -> str:
        path = _plain(name)
        refuse_hostile_paths([path])
        if path in self.files:
            raise MalformedArchive(f"the archive contains {path} twice")
        return path

    def _reserve(self, path: str, size: int) -> None:
        if size < 0:
            raise MalformedArchive(f"{path} in the archive has a negative size")
        if self._free is not None:
            self._free -= size
            if self._free < 0:
                raise OutOfSpace(
                    f"no space left on device: {path} in the archive has {size:,} bytes, {-self._free:,} more than are free; "
                    "free space or use a larger volume"
                )
        self._make_room(size)

    def _created(self, path: str) -> IO[bytes]:
        self._make_parents(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = open_beneath(self._base, self._directory / path, flags, self._mode)
        except FileExistsError as error:
            raise _occupied(path) from error
        try_chmod(descriptor, self._mode)
        return open(descriptor, "wb")

    def _make_parents(self, path: str) -> None:
        """Create the parent directories of `path`, but never the directory of the archive again.

        A process that was stopped and lost its lease finds it removed, and ends with FileNotFoundError.
        """
        os.close(open_beneath(self._base, self._directory, os.O_RDONLY | os.O_DIRECTORY))
        try:
            make_directories(self._base, (self._directory / path).parent)
        except NotADirectoryError as error:
            raise _occupied(path) from error


def _occupied(path: str) -> MalformedArchive:
    return MalformedArchive(
        f"{path} in the archive cannot be created: the path or a parent already exists as a file; the archive contains it "
        "twice, or another process wrote there"
    )


def _plain(name: str) -> str:
    """Normalize `./a//b`, as `tar -C DIR .` writes names, to `a/b`. Absolute paths and `..` stay as they are."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/" * name.startswith("/") + "/".join(parts)
