"""What an archive's members may become: plain files below one directory, under names that were checked, within the free space.

No link is ever made for a stranger: one that means another member becomes a further name of that file, any other is refused.
No link is followed either, below the root that the directory lies in: another user of the volume can plant one at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fetcher.dropins.streams import Readable
from fetcher.errors import MalformedArchive, OutOfSpace
from fetcher.filesystem import allow, file_mode, free_bytes
from fetcher.planning.paths import refuse_hostile_paths
from fetcher.store.beneath import link, make_directories, open_beneath
from fetcher.store.layout import base_of

PIECE = 1024 * 1024
"""Bytes that are read and written at a time."""
_LINKS = 8
"""How many links may lead to one another before a file is reached."""


class Stopped(Exception):
    """The one who waits for it has been cancelled."""


class Members:
    """What was taken out so far (`files`: sizes by path), and how much more may be. Methods raise OSError too."""

    def __init__(self, directory: Path, *, stopped: Callable[[], bool]) -> None:
        self.files: dict[str, int] = {}
        self.stopped = stopped
        self._links: dict[str, str] = {}
        self._directory = directory
        self._base = base_of(directory)
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
                piece = content.read(min(PIECE, left))
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
            self._make_room_for(path)
            try:
                link(self._base, source, new)
            except OSError:
                self._reserve(path, self.files[target])
                with open(open_beneath(self._base, source, os.O_RDONLY), "rb") as reader, self._created(path) as writer:
                    shutil.copyfileobj(reader, writer, PIECE)
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
        self._make_room_for(path)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = open_beneath(self._base, self._directory / path, flags, self._mode)
        except FileExistsError as error:
            raise _occupied(path) from error
        allow(descriptor, self._mode)
        return open(descriptor, "wb")

    def _make_room_for(self, path: str) -> None:
        """The directories that `path` needs."""
        try:
            make_directories(self._base, (self._directory / path).parent)
        except NotADirectoryError as error:
            raise _occupied(path) from error


def _occupied(path: str) -> MalformedArchive:
    return MalformedArchive(
        f"{path} of the archive can't be made: the archive holds it twice, or a file in the place of its directory, or another "
        "process wrote there"
    )


def _plain(name: str) -> str:
    """`./a//b` → `a/b`, as `tar -C DIR .` writes names; what is absolute or leads upwards stays that."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/" * name.startswith("/") + "/".join(parts)
