"""A directory that another tool filled, and that files are taken from.

Its names are hostile, and no link in it is followed. There is one exception: a snapshot of a Hub cache consists of links to the
blobs of its own repository, so a link that says exactly that leads to the blob.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from fetcher.artifact import RemoteFile
from fetcher.errors import UsageError
from fetcher.filesystem import mark
from fetcher.planning.paths import shown
from fetcher.store.beneath import open_beneath, parent, remove
from fetcher.values import dataclass

MOST_FILES = 1_000_000
"""Files of one directory tree at most. `/`, given by mistake, has more."""
_RECORDS = (".fetcher", ".git", ".cache/huggingface")
"""Directories in which other tools, and we, keep records of the files around them."""


@dataclass(frozen=True, slots=True)
class Donor:
    """The files below `directory`. `repository`: the folder in a Hub cache (`models--org--name`) whose snapshot that is."""

    directory: Path
    repository: Path | None = None

    @contextmanager
    def opened(self, path: str) -> Iterator[int | None]:
        """Open a file for reading; None if there is no regular file. Raises UsageError for a link, and OSError."""
        descriptor = self._open(path)
        try:
            regular = descriptor is not None and stat.S_ISREG(os.fstat(descriptor).st_mode)
            yield descriptor if regular else None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def file(self, path: str) -> RemoteFile:
        """Return the file with its size and the mark of its state, without a digest. Raises UsageError, OSError."""
        with self.opened(path) as descriptor:
            if descriptor is None:
                raise UsageError(f"{shown(path)} is not a regular file; remove it, or leave it out with --exclude", path=path)
            status = os.fstat(descriptor)
            return RemoteFile(path, status.st_size, validator=mark(status))

    def paths(self) -> tuple[str, ...]:
        """Return the paths of everything but directories, sorted. Records of tools are left out. Raises UsageError, OSError."""
        paths: list[str] = []
        for place, names, files, descriptor in os.fwalk(self.directory, onerror=_raise):
            above = PurePosixPath(os.path.relpath(place, self.directory))
            links = [name for name in names if _is_link(name, descriptor)]
            names[:] = [name for name in names if name not in links and (above / name).as_posix() not in _RECORDS]
            paths += [(above / name).as_posix() for name in (*files, *links)]
            if len(paths) > MOST_FILES:
                raise UsageError(f"{self.directory} contains more than {MOST_FILES:,} files; give the model's own directory")
        return tuple(sorted(paths))

    def release(self, path: str, *, state: str | None, published: int) -> None:
        """Remove a file if the open file `published` has its content: it is another name of that inode, or it was copied in the
        state `state` and did not change since. Any other file stays. Raises OSError."""
        with self.opened(path) as descriptor:
            if descriptor is None:
                return
            status = os.fstat(descriptor)
        same = os.path.samestat(status, os.fstat(published))
        if status.st_nlink > 1 if same else mark(status) == state:
            remove(*self._place(path))

    def _open(self, path: str) -> int | None:
        try:
            return open_beneath(*self._place(path), os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        raise UsageError(
            f"{shown(path)} is a link or lies behind one, and links are not followed; replace the link by the file, or leave "
            "it out with --exclude"
        )

    def _place(self, path: str) -> tuple[Path, Path]:
        """The directory below which no link is followed, and the place of the file."""
        place = self.directory / path
        if self.repository is None:
            return self.directory, place
        return self.repository, self._blob(self.repository, path) or place

    def _blob(self, repository: Path, path: str) -> Path | None:
        """The blob of a snapshot's link; None if `path` is no such link."""
        place, text = self.directory / path, ""
        with suppress(OSError), parent(repository, place) as (above, name):
            text = os.readlink(name, dir_fd=above)
        blob = repository / "blobs" / PurePosixPath(text).name
        expected = os.path.relpath(blob, place.parent)
        return blob if text == expected else None


def _is_link(name: str, directory: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def _raise(error: OSError) -> None:
    raise error
