"""Files under construction: bytes written at offsets into an inode nobody else has, chunk by chunk into the journal.

Methods that touch the disk block and may be called from several threads for different chunks of one file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.filesystem import allow, file_mode, make_directory, reserve
from fetcher.integrity.digests import Hasher
from fetcher.manifest import ManifestFile
from fetcher.planning.ranges import chunk_count
from fetcher.store.journal import Journal, JournalledChunk, JournalledPart
from fetcher.store.pages import drop


class StagedFile:
    """One file in a lease's data directory. `chunks` maps the index of each finished chunk to its XXH3-128; `parts` the index
    of one that an earlier attempt began to the bytes of it that are there and their running XXH3; `state` is how far the
    file's SHA-256 has come, and that in the making, if it can be saved.

    A `borrowed` inode (a hard link of a local source) is somebody else's: it is read, never changed.
    """

    def __init__(self, file: RemoteFile, path: Path, journal: Journal, *, descriptor: int, borrowed: bool = False) -> None:
        self.file = file
        self.path = path
        self.size = file.size
        self.chunks: dict[int, str] = {}
        self.parts: dict[int, tuple[int, Hasher]] = {}
        self.state: tuple[int, bytes] = (0, b"")
        self.descriptor = descriptor
        self._journal = journal
        self._borrowed = borrowed

    @classmethod
    def create(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile:
        """A new inode at `path`, whatever was there. Space is reserved where the filesystem can."""
        make_directory(path.parent)
        path.unlink(missing_ok=True)
        mode = file_mode(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            allow(descriptor, mode)
            reserve(descriptor, file.size or 0)
        except BaseException:
            os.close(descriptor)
            raise
        staged = cls(file, path, journal, descriptor=descriptor)
        staged._begin()
        return staged

    @classmethod
    def reopen(cls, file: RemoteFile, path: Path, journal: Journal) -> StagedFile | None:
        """Go on in the inode that is there; None unless it is a regular file that only this name refers to."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        status = os.fstat(descriptor)
        # More than one link: a previous version's published file, which is never opened for writing.
        if status.st_nlink != 1 or (file.size is not None and status.st_size > file.size):
            os.close(descriptor)
            return None
        staged = cls(file, path, journal, descriptor=descriptor)
        staged._begin()
        return staged

    @property
    def complete(self) -> bool:
        """Whether every chunk is there."""
        return self.size is not None and len(self.chunks) == chunk_count(self.size)

    @property
    def held(self) -> int:
        """Bytes in finished chunks, and in begun ones of an earlier attempt."""
        last = chunk_count(self.size or 0) - 1
        tail = (self.size or 0) - last * CHUNK_SIZE if last in self.chunks else 0
        begun = sum(length for length, _ in self.parts.values())
        return (len(self.chunks) - (last in self.chunks)) * CHUNK_SIZE + tail + begun

    def write(self, offset: int, data: memoryview) -> None:
        """pwrite(2) until everything is written. Raises OSError."""
        while data:
            count = os.pwrite(self.descriptor, data, offset)
            offset += count
            data = data[count:]

    def finish_chunk(self, index: int, chunk: JournalledChunk) -> None:
        """Chunk `index` is written and has the XXH3-128 that `chunk` says."""
        self.chunks[index] = chunk.xxh3
        self.parts.pop(index, None)
        if self.file.identity is not None:
            self._journal.chunk(self.file.path, index, chunk)

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
        self.chunks.pop(index, None)

    def restart(self) -> None:
        """Throw everything away and begin anew in a new inode."""
        self.discard()
        fresh = StagedFile.create(self.file, self.path, self._journal)
        self.descriptor, self.chunks, self.parts, self.size = fresh.descriptor, {}, {}, self.file.size
        self._borrowed = False

    def discard(self) -> None:
        """Remove the file and its record; other files stay resumable."""
        self.close()
        self._journal.drop(self.file.path)
        self.path.unlink(missing_ok=True)
        self.chunks, self.parts = {}, {}

    def seal(self, *, drop_pages: bool = False) -> ManifestFile:
        """Cut to size, sync, close; what the manifest says of it. Raises OSError: after a failed fsync the kernel may have
        dropped the pages, so the file must be fetched again and never synced again."""
        if self.size is None:
            raise ValueError(f"{self.path} is not complete")
        if not self._borrowed:
            os.ftruncate(self.descriptor, self.size)
        os.fsync(self.descriptor)
        if drop_pages:
            drop(self.descriptor, ByteRange(0, self.size))
        self.close()
        return ManifestFile(
            path=self.file.path,
            size=self.size,
            digests=self.file.digests,
            chunks=tuple(self.chunks[index] for index in range(chunk_count(self.size))),
            validator=self.file.validator,
        )

    def close(self) -> None:
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            with suppress(OSError):
                os.close(descriptor)

    def _begin(self) -> None:
        if (identity := self.file.identity) is not None:
            self._journal.begin(self.file.path, identity)
