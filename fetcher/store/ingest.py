"""Files under construction: bytes written at offsets into an inode nobody else has, chunk by chunk into the journal.

Methods that touch the disk block and may be called from several threads for different chunks of one file.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.filesystem import allow, file_mode, reserve
from fetcher.integrity.hasher import Hasher
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import open_beneath, parent, remove
from fetcher.store.handle import Handle
from fetcher.store.journal import Journal, JournalledChunk, JournalledPart
from fetcher.store.layout import base_of, fence_of
from fetcher.store.pages import drop


class StagedFile:
    """One file in a lease's data directory. `chunks` maps the index of each finished chunk to its XXH3-128; `parts` the index
    of one that an earlier attempt began to the bytes of it that are there and their running XXH3; `state` is how far the
    file's SHA-256 has come, and that in the making, if it can be saved.

    A `borrowed` inode (a hard link of a local source) is somebody else's: it is read, never changed.

    Nothing is open but within `opened`, or from the next use on after `keep_open`.
    """

    def __init__(self, file: RemoteFile, path: Path, journal: Journal, *, borrowed: bool = False) -> None:
        self.file = file
        self.path = path
        self.size = file.size
        self.chunks: dict[int, str] = {}
        self.parts: dict[int, tuple[int, Hasher]] = {}
        self.state: tuple[int, bytes] = (0, b"")
        self.handle = Handle(self._open)
        self._journal = journal
        self._borrowed = borrowed
        self._counting = threading.Lock()
        self._held = 0

    @classmethod
    def create(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile:
        """A new inode at `path`, whatever was there. Space is reserved where the filesystem can."""
        fence = fence_of(path)
        fence.make_directories(path.parent)
        remove(base_of(path), path)
        mode = file_mode(path.parent)
        descriptor = fence.create(path, mode)
        try:
            allow(descriptor, mode)
            reserve(descriptor, file.size or 0)
        finally:
            os.close(descriptor)
        staged = cls(file, path, journal)
        staged._begin()
        return staged

    @classmethod
    def reopen(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile | None:
        """Go on in the inode that is there; None unless it is a regular file that only this name refers to."""
        staged = cls(file, path, journal)
        try:
            with staged.opened() as descriptor:
                size = os.fstat(descriptor).st_size
        except OSError:
            return None
        if file.size is not None and size > file.size:
            return None
        staged._begin()
        return staged

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return self.size is not None and len(self.chunks) == chunk_count(self.size)

    @property
    def held(self) -> int:
        """Bytes in finished chunks, and in begun ones of an earlier attempt."""
        return self._held

    def opened(self) -> AbstractContextManager[int]:
        """Its descriptor, valid within the block. Raises OSError."""
        return self.handle.opened()

    def keep_open(self) -> None:
        """From its next use on it stays open until it is sealed, discarded or closed."""
        self.handle.keep()

    def write(self, offset: int, data: memoryview) -> None:
        """pwrite(2) until everything is written. Raises OSError."""
        with self.opened() as descriptor:
            while data:
                count = os.pwrite(descriptor, data, offset)
                offset += count
                data = data[count:]

    def finish_chunk(self, index: int, chunk: JournalledChunk) -> None:
        """Chunk `index` is written and has the XXH3-128 that `chunk` says."""
        with self._counting:
            self._held += 0 if index in self.chunks else self._length(index)
            self.chunks[index] = chunk.xxh3
            self._held -= self.parts.pop(index, (0, None))[0]
        if self.file.identity is not None:
            self._journal.chunk(self.file.path, index, chunk)

    def continue_part(self, index: int, part: JournalledPart, hasher: Hasher) -> None:
        """The first bytes of chunk `index` are there, from an earlier attempt; `hasher` has seen them."""
        with self._counting:
            self.parts[index] = (part.length, hasher)
            self._held += part.length
        self.note_part(index, part)

    def note_part(self, index: int, part: JournalledPart) -> None:
        """The first bytes of chunk `index` are written: a kill costs no more than what follows them."""
        if self.file.identity is not None:
            self._journal.part(self.file.path, index, part)

    def note_state(self, position: int, state: bytes) -> None:
        """The SHA-256 of the first `position` bytes is at `state`: whoever continues need not read them for it again."""
        self.state = (position, state)
        if self.file.identity is not None:
            self._journal.state(self.file.path, position, state)

    def drop_chunk(self, index: int) -> None:
        """Chunk `index` turned out wrong. Its record is outdone by the one that follows a new write."""
        with self._counting:
            self._held -= self._length(index) if self.chunks.pop(index, None) is not None else 0

    def restart(self) -> None:
        """Throw everything away and begin anew in a new inode."""
        self.discard()
        StagedFile.create(self.file, self.path, self._journal)
        self.handle = Handle(self._open)
        self.handle.keep()
        self.size = self.file.size
        self._borrowed = False

    def discard(self) -> None:
        """Remove the file and its record; other files stay resumable."""
        self.close()
        self._journal.drop(self.file.path)
        remove(base_of(self.path), self.path)
        with self._counting:
            self.chunks, self.parts, self._held = {}, {}, 0

    def seal(self, *, drop_pages: bool = False) -> ManifestFile:
        """Cut to size, sync, close; what the manifest says of it. Raises OSError: after a failed fsync the kernel may have
        dropped the pages, so the file must be fetched again and never synced again."""
        if self.size is None:
            raise ValueError(f"{self.path} is not complete")
        with self.opened() as descriptor:
            if not self._borrowed:
                os.ftruncate(descriptor, self.size)
            os.fsync(descriptor)
            if drop_pages:
                drop(descriptor, ByteRange(0, self.size))
        self.close()
        return ManifestFile(
            path=self.file.path,
            size=self.size,
            digests=self.file.digests,
            chunks=tuple(self.chunks[index] for index in range(chunk_count(self.size))),
            validator=self.file.validator,
        )

    def close(self) -> None:
        """Nobody opens it again. Threads that use it now end what they do first."""
        self.handle.close()

    def _open(self) -> int:
        """Raises OSError unless a regular file is there that only this name refers to (or a borrowed one)."""
        flags = os.O_RDONLY if self._borrowed else os.O_RDWR
        descriptor = open_beneath(base_of(self.path), self.path, flags)
        status = os.fstat(descriptor)
        # More than one link: a previous version's published file, which is never opened for writing.
        if not stat.S_ISREG(status.st_mode) or (status.st_nlink != 1 and not self._borrowed):
            os.close(descriptor)
            raise OSError(errno.ESTALE, "another file is in the place of the staged one", str(self.path))
        return descriptor

    def _length(self, index: int) -> int:
        """Bytes of chunk `index`."""
        return CHUNK_SIZE if self.size is None else len(chunk_range(index, self.size))

    def _begin(self) -> None:
        if (identity := self.file.identity) is not None:
            self._journal.begin(self.file.path, identity)


def link_staged(source: Path, target: Path) -> bool:
    """Make the staged file `target` another name of `source`; False where the filesystem can't. Raises FileNotFoundError."""
    fence_of(target).make_directories(target.parent)
    remove(base_of(target), target)
    try:
        with parent(base_of(target), target) as (above, name):
            os.link(source, name, dst_dir_fd=above)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True
