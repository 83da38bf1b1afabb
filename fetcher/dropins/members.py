"""What an archive's members may become: plain files below one directory, under names that were checked, within the free space.

No link is ever made for a stranger: one that means another member becomes a further name of that file, any other is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fetcher.dropins.streams import Readable
from fetcher.errors import MalformedArchive, OutOfSpace
from fetcher.filesystem import allow, file_mode, free_bytes, make_directory
from fetcher.planning.paths import refuse_hostile_paths

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
            make_directory(new.parent)
            try:
                os.link(source, new)
            except OSError:
                self._reserve(path, self.files[target])
                with source.open("rb") as reader, self._created(path) as writer:
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
