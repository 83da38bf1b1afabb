"""Copy chunks from file to file, and hash each piece while it is in the processor's cache."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

import xxhash

from fetcher.errors import DigestMismatch
from fetcher.events import BytesLoaded, Subscriber
from fetcher.filesystem import clone, file_mode, make_directory, reserve, storing, try_chmod
from loader.copying.artifacts import Artifact, Item
from loader.errors import FileReplaced, from_os_error
from loader.workers import OwnBuffer

PIECE = 512 * 1024
"""Bytes read, hashed and written at a time. A piece stays in a processor's cache between the three steps. Of 0.6 processor
seconds per GiB, tmpfs takes 0.4 to find its pages, and the hash takes 0.08. Hashing a mapping of the source would save 0.03,
but a source that is truncated meanwhile would raise SIGBUS. Reading into a mapping of the copy takes 0.3 more."""

_NO_LINKS = frozenset({errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV})
"""Errors of filesystems without hard links (exFAT, some FUSE), and of files with the maximum number of links."""


def round_robin(items: Iterable[Item], *, files: int) -> Iterator[tuple[Item, int]]:
    """Yield every chunk of every item once: round robin over `files` items at a time, in order within an item."""
    waiting = iter(items)
    turns = deque((item, 0) for item in islice(waiting, files))
    while turns:
        item, index = turns.popleft()
        if index < item.chunks:
            yield item, index
            turns.append((item, index + 1))
        else:
            turns.extendleft((other, 0) for other in islice(waiting, 1))


class ChunkCopier:
    """Copies chunks from any thread. Call `begin` for each file, then `copy_chunk` for each of its chunks.

    The threads share which files were cloned, and how many chunks of each file are missing.
    """

    def __init__(self, artifact: Artifact, data: Path, on_event: Subscriber, *, durable: bool) -> None:
        self._root = artifact.root
        self._data = data
        self._on_event = on_event
        self._durable = durable
        self._cloned: set[str] = set()
        self._missing: dict[str, int] = {}
        self._one_at_a_time = threading.Lock()
        self._buffer = OwnBuffer(PIECE)

    def begin(self, item: Item) -> None:
        """Create the file: a clone of its source if the filesystem supports that, else empty with its space reserved.

        A clone copies no data, but every chunk is still checked. Raises StoreError, FileReplaced, and read errors.
        """
        path = self._data / item.path
        with storing("make the copy", str(path)):
            make_directory(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
            try:
                try_chmod(descriptor, file_mode(path.parent))
                with self._opened(item) as source:
                    if clone(source, descriptor):
                        self._cloned.add(item.path)
                    else:
                        reserve(descriptor, item.size)
                self._missing[item.path] = item.chunks
                if not item.chunks:
                    self._finish(item, descriptor)
            finally:
                os.close(descriptor)

    def link(self, item: Item, other: Item) -> bool:
        """Link the copy of `item` to the name of `other`, which is the same file in the source.

        Returns False if hard links are not possible. Raises FileReplaced if the source of `other` changed, and StoreError.
        """
        with self._opened(other):
            path = self._data / other.path
        with storing("make the copy", str(path)):
            make_directory(path.parent)
            try:
                os.link(self._data / item.path, path, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
        return True

    def copy_chunk(self, piece: tuple[Item, int]) -> None:
        """Copy and check chunk `index` of `item`. Raises DigestMismatch, FileReplaced, StoreError, and read errors."""
        item, index = piece
        path = self._data / item.path
        with storing("write the copy", str(path)):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if item.path in self._cloned:
                digest = self._process(item, index, descriptor, None)
            else:
                with self._opened(item) as source:
                    digest = self._process(item, index, source, descriptor)
            self._compare(item, index, digest)
            self._count(item, index, descriptor)
        finally:
            os.close(descriptor)

    def _process(self, item: Item, index: int, source: int, target: int | None) -> str | None:
        """Read a chunk, hash it if its digest is known, write it if there is a target. Return the hash."""
        hasher = xxhash.xxh3_128() if item.digests else None
        chunk, buffer = item.chunk(index), self._buffer.mine
        position = chunk.start
        while position < chunk.stop:
            piece = buffer[: min(len(buffer), chunk.stop - position)]
            count = self._read(item, source, piece, position)
            if hasher is not None:
                hasher.update(piece[:count])
            if target is not None:
                self._write(item, target, piece[:count], position)
            position += count
        return hasher.hexdigest() if hasher is not None else None

    def _read(self, item: Item, source: int, piece: memoryview, position: int) -> int:
        path = str(self._root / item.path)
        try:
            count = os.preadv(source, [piece], position)
        except OSError as error:
            raise from_os_error(error, doing="read the content", path=path) from error
        if not count:
            raise FileReplaced(f"{path} was truncated while it was copied; try again", path=path)
        return count

    def _write(self, item: Item, target: int, piece: memoryview, position: int) -> None:
        with storing("write the copy", str(self._data / item.path)):
            while piece:
                count = os.pwrite(target, piece, position)
                piece, position = piece[count:], position + count

    def _compare(self, item: Item, index: int, digest: str | None) -> None:
        if digest is not None and digest != item.digests[index]:
            raise DigestMismatch(
                f"{self._root / item.path}: chunk {index} (from byte {item.chunk(index).start:,}) has another digest than the "
                "manifest; no copy was made; fetch the artifact again",
                path=item.path,
                expected=item.digests[index],
                actual=digest,
            )

    def _count(self, item: Item, index: int, descriptor: int) -> None:
        with self._one_at_a_time:
            self._missing[item.path] -= 1
            last = not self._missing[item.path]
            self._on_event(BytesLoaded(item.path, len(item.chunk(index))))
        if last:
            self._finish(item, descriptor)

    def _finish(self, item: Item, descriptor: int) -> None:
        """Check the source again: the copy may mix two versions of it. Then set the time, and sync the copy to disk."""
        with self._opened(item):
            pass
        with storing("write the copy", str(self._data / item.path)):
            os.utime(descriptor, ns=(item.identity.mtime_ns, item.identity.mtime_ns))
            if self._durable:
                os.fsync(descriptor)

    def _opened(self, item: Item) -> AbstractContextManager[int]:
        return item.identity.opened(str(self._root / item.path))
