"""Files under construction: bytes are written at offsets into a private inode, and each chunk is recorded in the journal.

Methods that access the disk block. Several threads may call them for different chunks of one file.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, Checksum, RemoteFile
from fetcher.filesystem import clone, file_mode, reserve, try_chmod
from fetcher.integrity.checksums import CrcCheck
from fetcher.integrity.frontier import chunk_digest
from fetcher.integrity.hasher import Hasher
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count, chunk_range
from fetcher.store.beneath import open_beneath, parent, remove
from fetcher.store.handle import Handle
from fetcher.store.journal import Journal, JournalledChunk, JournalledPart
from fetcher.store.layout import base_of, fence_of
from fetcher.store.pages import drop


class StagedFile:
    """One file in a lease's data directory.

    `chunks` maps the index of each finished chunk to its XXH3-128, `suppliers` to who brought it. `parts` maps the index of a
    chunk that an earlier attempt began to the number of bytes written and their running XXH3. `state` is the number of bytes in
    the unfinished SHA-256, and its saved state. `crcs` are the CRCs of the finished chunks that this process has received or
    read.

    A `borrowed` inode (a hard link to a local source) belongs to somebody else: it is read, never changed.

    The file is open only within `opened`, or after `keep_open` from its next use on.
    """

    def __init__(self, file: RemoteFile, path: Path, journal: Journal, *, borrowed: bool = False) -> None:
        self.file = file
        self.path = path
        self.size = file.size
        self.chunks: dict[int, str] = {}
        self.suppliers: dict[int, str] = {}
        self.parts: dict[int, tuple[int, Hasher]] = {}
        self.state: tuple[int, bytes] = (0, b"")
        self.crcs = CrcCheck(file)
        self.handle = Handle(self._open)
        self._journal = journal
        self._borrowed = borrowed
        self._counting = threading.Lock()
        self._held = 0

    @classmethod
    def create(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile:
        """Create a new inode at `path`, replacing any file there. Reserves space if the filesystem can. Raises OSError."""
        with _new_inode(path) as descriptor:
            reserve(descriptor, file.size or 0)
        staged = cls(file, path, journal)
        staged._begin()
        return staged

    @classmethod
    def cloned(cls, file: RemoteFile, path: Path, journal: Journal, source: int) -> StagedFile | None:
        """Create a new inode that shares all blocks of the open file `source`. None, and no file, if the filesystem cannot.

        Raises OSError.
        """
        with _new_inode(path) as descriptor:
            shared = clone(source, descriptor)
        if not shared:
            remove(base_of(path), path)
            return None
        staged = cls(file, path, journal)
        staged._begin()
        return staged

    @classmethod
    def empty(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile:
        """Create a new inode at `path`, replacing any file there, without space: it may share blocks. Raises OSError."""
        with _new_inode(path):
            staged = cls(file, path, journal)
        staged._begin()
        return staged

    @classmethod
    def reopen(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile | None:
        """Continue in the existing inode; None unless it is a regular file with this name only, no longer than listed."""
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
        """Whether every chunk is finished."""
        return self.size is not None and len(self.chunks) == chunk_count(self.size)

    @property
    def held(self) -> int:
        """Bytes in finished chunks and in chunks that an earlier attempt began."""
        return self._held

    def opened(self) -> AbstractContextManager[int]:
        """Return a context manager for the descriptor, which is valid within the block. Raises OSError."""
        return self.handle.opened()

    def keep_open(self) -> None:
        """Keep the file open from its next use on, until it is sealed, discarded or closed."""
        self.handle.keep()

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset` with pwrite(2). Raises OSError."""
        with self.opened() as descriptor:
            while data:
                count = os.pwrite(descriptor, data, offset)
                offset += count
                data = data[count:]

    def finish_chunk(self, index: int, chunk: JournalledChunk, hasher: Hasher | None = None) -> None:
        """Record that chunk `index` is written, with the XXH3-128 in `chunk`. `hasher`, one of `crcs`, has seen its bytes."""
        if hasher is not None:
            self.crcs.add(index, hasher)
        with self._counting:
            self._held += 0 if index in self.chunks else self._length(index)
            self.chunks[index], self.suppliers[index] = chunk.xxh3, chunk.supplier
            self._held -= self.parts.pop(index, (0, None))[0]
        if self.file.identity is not None:
            self._journal.chunk(self.file.path, index, chunk)

    def finish_if_unchanged(self, index: int, chunk: JournalledChunk, descriptor: int, size: int) -> None:
        """Record chunk `index` if its bytes, read from `descriptor`, still have the XXH3-128 in `chunk`. Raises OSError."""
        part = chunk_range(index, size)
        hasher = self.crcs.new_hasher(part.start)
        if chunk_digest(descriptor, part, hasher) == chunk.xxh3:
            self.finish_chunk(index, chunk, hasher)

    def without_crcs(self) -> list[int]:
        """Return the finished chunks whose CRCs are needed and unknown: those of a clone, or of joined segments."""
        return self.crcs.missing(self.chunks)

    def compute_crcs(self, indexes: Iterable[int]) -> None:
        """Read the chunks `indexes` for their CRCs. Raises OSError."""
        with self.opened() as descriptor:
            for index in indexes:
                part = chunk_range(index, self.size or 0)
                hasher = self.crcs.new_hasher(part.start)
                chunk_digest(descriptor, part, hasher)
                self.crcs.add(index, hasher)

    def continue_part(self, index: int, part: JournalledPart, hasher: Hasher) -> None:
        """Record that an earlier attempt wrote the first bytes of chunk `index`. `hasher` already includes them."""
        with self._counting:
            self.parts[index] = (part.length, hasher)
            self._held += part.length
        self.note_part(index, part)

    def note_part(self, index: int, part: JournalledPart) -> None:
        """Record the first bytes of chunk `index` in the journal, so that a kill loses only later ones."""
        if self.file.identity is not None:
            self._journal.part(self.file.path, index, part)

    def note_state(self, position: int, state: bytes) -> None:
        """Record `state`, the SHA-256 of the first `position` bytes, so that the next owner need not hash them again."""
        self.state = (position, state)
        if self.file.identity is not None:
            self._journal.state(self.file.path, position, state)

    def drop_chunk(self, index: int) -> None:
        """Forget the wrong chunk `index`, and void its record. Raises OSError."""
        self.crcs.drop(index)
        with self._counting:
            self._held -= self._length(index) if self.chunks.pop(index, None) is not None else 0
            self.suppliers.pop(index, None)
        if self.file.identity is not None:
            self._journal.wrong(self.file.path, index)

    def restart(self) -> None:
        """Discard everything and start again in a new inode. Raises OSError."""
        self.discard()
        StagedFile.create(self.file, self.path, self._journal)
        self.handle = Handle(self._open)
        self.handle.keep()
        self.size = self.file.size
        self._borrowed = False

    def discard(self) -> None:
        """Remove the file and its journal records. Other files stay resumable."""
        self.close()
        self._journal.drop(self.file.path)
        remove(base_of(self.path), self.path)
        self.crcs.clear()
        with self._counting:
            self.chunks, self.suppliers, self.parts, self._held = {}, {}, {}, 0

    def seal(self, *, checksums: Iterable[Checksum] = (), drop_pages: bool = False) -> ManifestFile:
        """Truncate to size, sync and close; return the manifest's entry. The caller has compared digests and `checksums`.

        Raises OSError: after a failed fsync the kernel may have dropped the pages, so the file must be fetched again, and not
        synced a second time.
        """
        if self.size is None:
            raise ValueError(f"{self.path} is not complete")
        with self.opened() as descriptor:
            if not self._borrowed:
                os.ftruncate(descriptor, self.size)
            os.fsync(descriptor)
            if drop_pages:
                drop(descriptor, ByteRange(0, self.size))
        self.close()
        if self.file.digests:
            with suppress(OSError):  # only others want to know it, and soon they see it published
                self._journal.verified(self.file.path)
        return ManifestFile(
            path=self.file.path,
            size=self.size,
            digests=self.file.digests,
            chunks=tuple(self.chunks[index] for index in range(chunk_count(self.size))),
            validator=self.file.validator,
            checksums=tuple(str(each) for each in checksums),
        )

    def close(self) -> None:
        """Forbid further opening. Threads that use the file now finish first."""
        self.handle.close()

    def _open(self) -> int:
        """Open the inode. Raises OSError unless it is a regular file with this name only, or a borrowed one."""
        flags = os.O_RDONLY if self._borrowed else os.O_RDWR
        descriptor = open_beneath(base_of(self.path), self.path, flags)
        status = os.fstat(descriptor)
        # More than one link means a published file of a previous version, which is never opened for writing.
        if not stat.S_ISREG(status.st_mode) or (status.st_nlink != 1 and not self._borrowed):
            os.close(descriptor)
            raise OSError(errno.ESTALE, "another file replaced the staged one", str(self.path))
        return descriptor

    def _length(self, index: int) -> int:
        """Length of chunk `index` in bytes."""
        return CHUNK_SIZE if self.size is None else len(chunk_range(index, self.size))

    def _begin(self) -> None:
        if (identity := self.file.identity) is not None:
            self._journal.begin(self.file.path, identity)


@contextmanager
def _new_inode(path: Path) -> Iterator[int]:
    """Create an empty file, replacing any file at `path`. Its descriptor is valid within the block."""
    fence = fence_of(path)
    directory = path.parent
    fence.make_directories(directory)
    mode = file_mode(directory)
    try:
        descriptor = fence.create(path, mode)
    except FileExistsError:
        remove(base_of(path), path)
        descriptor = fence.create(path, mode)
    try:
        try_chmod(descriptor, mode)
        yield descriptor
    finally:
        os.close(descriptor)


def link_staged(source: Path, target: Path) -> bool:
    """Hard-link the staged file `target` to `source`; False if the filesystem cannot. Raises FileNotFoundError."""
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
