"""Hashing behind the download: the digest of a file follows its contiguous prefix while later parts still arrive.

Chunks arrive out of order and are written where they belong; SHA-256 is sequential. So one frontier a file moves forward
whenever the bytes at its position are there, reading them from the page cache into which they were just written; several
files' move together, in the lanes of a vector unit.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress

from fetcher.artifact import ByteRange, Digest, RemoteFile
from fetcher.integrity.digests import DigestCheck, new_chunk_hasher
from fetcher.integrity.hasher import Hasher
from fetcher.integrity.lanes import advance

_MADV_POPULATE_READ = 22
WORTH_MAPPING = 1024 * 1024
"""Bytes. Below, mapping and unmapping (0.3 ms with threads running) cost more than copying."""
LONGER = 8
"""Times as much as a buffer holds is hashed at once where none is needed: a step of 16 MiB instead of 2. Of 2 GiB in one file a
verified fetch took 7.2 s instead of 7.9, in 16 files 2.9 instead of 3.3: after each step a thread waits for the interpreter."""
READ_SIZE = 512 * 1024
"""Bytes. `pread` + XXH3 on two threads took 0.207 s for 2 GiB in pieces of 256 or 512 KiB, 0.231 in ones of 1 MiB, which
is all of a second-level cache, and twice as long in ones of 16 MiB."""


class Frontier:
    """How far the digests of one file have come. `position` is the number of bytes hashed."""

    __slots__ = ("_check", "position")

    def __init__(self, file: RemoteFile, *, streams: int = 1) -> None:
        self._check = DigestCheck(file.digests, size=file.size, streams=streams)
        self.position = 0

    @property
    def hashers(self) -> list[Hasher]:
        return self._check.hashers

    def save(self) -> bytes | None:
        """The digest in the making, for `restore` in another process; None when it can't be had."""
        return self._check.save()

    def restore(self, position: int, state: bytes) -> None:
        """Go on after the first `position` bytes. Raises DigestUnavailable where that is not possible."""
        self._check.restore(state, length=position)
        self.position = position

    def mismatch(self) -> tuple[Digest, str] | None:
        """After the last byte: as `DigestCheck.mismatch`."""
        return self._check.mismatch()


class Stretch:
    """The bytes of a file from its frontier up to byte `limit`, all of which are written. Used by one thread at a time.
    `opened` gives its descriptor, valid within a block.

    They are hashed where they are, in the page cache: mapped, which spares a copy of everything (12 % of a verified fetch's
    wall time). Reading mapped memory turns an error of the device into SIGBUS; MADV_POPULATE_READ (Linux 5.14) fails instead,
    and then, as on older kernels, the bytes are read in the ordinary way, which says what is wrong.
    """

    __slots__ = ("_base", "_mapped", "_to_be_mapped", "frontier", "limit", "name", "opened")

    def __init__(self, name: str, frontier: Frontier, opened: Callable[[], AbstractContextManager[int]], limit: int) -> None:
        self.name = name
        self.frontier = frontier
        self.opened = opened
        self.limit = limit
        self._base = frontier.position // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapped: mmap.mmap | None = None
        self._to_be_mapped = limit - frontier.position >= WORTH_MAPPING

    @property
    def left(self) -> int:
        return self.limit - self.frontier.position

    def next_bytes(self, buffer: memoryview) -> memoryview:
        """What follows the frontier, at least one byte: a bounded part of what is mapped, or as much as fits into `buffer`.

        Raises OSError with the name as its filename, and EOFError when the file ends before its limit.
        """
        if self._to_be_mapped:
            self._map()
        position, size = self.frontier.position, min(len(buffer), self.left)
        if self._mapped is not None:
            size = min(LONGER * len(buffer), self.left)
            start = position - self._base
            try:
                aligned = start // mmap.PAGESIZE * mmap.PAGESIZE
                self._mapped.madvise(_MADV_POPULATE_READ, aligned, start - aligned + size)
                return memoryview(self._mapped)[start : start + size]
            except OSError:
                self._mapped = None
        try:
            with self.opened() as descriptor:
                count = os.preadv(descriptor, [buffer[:size]], position)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.name) from error
        if count == 0:
            raise EOFError(f"{self.name} ends at byte {position:,}, before byte {self.limit:,}")
        return buffer[:count]

    def _map(self) -> None:
        """When a thread has taken it, so that any number of stretches may wait with nothing open."""
        self._to_be_mapped = False
        with suppress(OSError, ValueError), self.opened() as descriptor:  # ValueError: the file ends before
            self._mapped = mmap.mmap(descriptor, self.limit - self._base, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._base)

    def close(self) -> None:
        """Let go of the pages, which can't be dropped from the page cache while they are mapped. What follows is read."""
        self._to_be_mapped = False
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            with suppress(BufferError):  # an error's traceback still refers to some of it, and unmaps it with itself
                mapped.close()


def advance_together(stretches: Sequence[Stretch], buffer: memoryview) -> None:
    """One step of each, as long as an equal share of `buffer`, or LONGER. Blocks; no frontier may occur twice.

    Raises as `Stretch.next_bytes`, and then none has moved.
    """
    share = len(buffer) // len(stretches)
    steps = [
        (stretch, stretch.next_bytes(buffer[number * share : (number + 1) * share])) for number, stretch in enumerate(stretches)
    ]
    advance([(hasher, data) for stretch, data in steps for hasher in stretch.frontier.hashers])
    for stretch, data in steps:
        stretch.frontier.position += len(data)


def chunk_digest(descriptor: int, byte_range: ByteRange) -> str | None:
    """XXH3-128 of a part of a file; None when the file is shorter."""
    hasher, seen = new_chunk_hasher(), 0
    for piece in read_pieces(descriptor, byte_range, short_ok=True):
        hasher.update(piece)
        seen += len(piece)
    return hasher.hexdigest() if seen == len(byte_range) else None


def read_pieces(descriptor: int, byte_range: ByteRange, *, short_ok: bool = False) -> Iterator[memoryview]:
    """The bytes of a range in order, as views of one reused buffer: each is valid until the next is asked for.

    Raises OSError, and EOFError when the file ends before the range does (unless `short_ok`).
    """
    buffer = memoryview(bytearray(min(READ_SIZE, max(len(byte_range), 1))))
    position = byte_range.start
    while position < byte_range.stop:
        count = os.preadv(descriptor, [buffer[: byte_range.stop - position]], position)
        if count == 0:
            if short_ok:
                return
            raise EOFError(f"the file ends at byte {position}, before byte {byte_range.stop}")
        yield buffer[:count]
        position += count
