"""Hashing behind the download: the digest of a file follows its contiguous prefix while later parts still arrive.

Chunks arrive out of order, but SHA-256 is sequential. So each file has a frontier, which moves forward when the bytes at its
position are written. One holder at a time moves it: the connection that writes the next bytes of the file, which hashes them
while they are in a CPU's cache, or the follower, which reads them from the page cache. The follower moves the frontiers of
several files together, in the lanes of a vector unit.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress

from fetcher.artifact import ByteRange, Checksum, Digest, RemoteFile
from fetcher.integrity.checksums import in_order
from fetcher.integrity.digests import DigestCheck, new_chunk_hasher
from fetcher.integrity.hasher import Hasher
from fetcher.integrity.lanes import advance

_MADV_POPULATE_READ = 22
WORTH_MAPPING = 1024 * 1024
"""Bytes. Below this, mapping and unmapping (0.3 ms with threads running) cost more than copying."""
LONGER = 8
"""Times the length of the buffer: one step of a mapped file, which needs no buffer, hashes 16 MiB instead of 2. A verified
fetch of 2 GiB took 7.2 s instead of 7.9 in one file and 2.9 instead of 3.3 in 16: a thread waits for the interpreter after each
step."""
READ_SIZE = 512 * 1024
"""Bytes. `pread` + XXH3 on two threads took 0.207 s for 2 GiB in pieces of 256 or 512 KiB, 0.231 s in pieces of 1 MiB (all of
a second-level cache), and twice as long in pieces of 16 MiB."""


class Frontier:
    """The running digests of one file. `position` is the number of bytes hashed. Only its holder moves it, on any thread; it
    changes hands on one thread."""

    __slots__ = ("_check", "_holder", "position")

    def __init__(self, file: RemoteFile, *, streams: int = 1) -> None:
        self._check = DigestCheck(file.digests, size=file.size, streams=streams, checksums=in_order(file))
        self._holder: object | None = None
        self.position = 0

    def take(self, holder: object) -> bool:
        """Give the frontier to `holder`, and return True; False if somebody holds it."""
        if self._holder is not None:
            return False
        self._holder = holder
        return True

    def give_back(self, holder: object) -> None:
        """Make the frontier free again. Raises ValueError if `holder` does not hold it: a bug."""
        if self._holder is not holder:
            raise ValueError(f"the frontier at byte {self.position:,} is given back by somebody who does not hold it")
        self._holder = None

    @property
    def free(self) -> bool:
        """Whether nobody holds the frontier."""
        return self._holder is None

    def update(self, data: memoryview) -> None:
        """Hash `data`, the bytes at `position`."""
        self._check.update(data)
        self.position += len(data)

    @property
    def hashers(self) -> list[Hasher]:
        return self._check.hashers

    def save(self) -> bytes | None:
        """Return the state, for `restore` in another process; None if it cannot be saved."""
        return self._check.save()

    def restore(self, position: int, state: bytes) -> None:
        """Resume after the first `position` bytes. Raises DigestUnavailable if that is impossible."""
        self._check.restore(state, length=position)
        self.position = position

    def mismatch(self) -> tuple[Digest | Checksum, str] | None:
        """Return the result of `DigestCheck.mismatch`. Call it after the last byte."""
        return self._check.mismatch()


class Stretch:
    """The bytes of a file from its frontier up to byte `limit`, all of which are written. Used by one thread at a time.
    `opened` gives a descriptor of the file, valid within a block.

    The bytes are mapped and hashed in the page cache, which saves a copy (12 % of a verified fetch's wall time). An error of
    the device turns a read of mapped memory into SIGBUS; MADV_POPULATE_READ (Linux 5.14) fails instead. Then, and on older
    kernels, the bytes are read with `preadv`, whose error names the cause.
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
        """Return the bytes after the frontier, at least one: a bounded part of the mapping, or as much as fits into `buffer`.

        Raises OSError with the name as its filename, and EOFError if the file ends before the limit.
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
        """Map on first use, so that stretches which wait for a thread hold nothing open."""
        self._to_be_mapped = False
        with suppress(OSError, ValueError), self.opened() as descriptor:  # ValueError: the file is shorter
            self._mapped = mmap.mmap(descriptor, self.limit - self._base, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._base)

    def close(self) -> None:
        """Unmap: the page cache cannot drop mapped pages. Later bytes are read instead."""
        self._to_be_mapped = False
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            with suppress(BufferError):  # the traceback of an error still refers to the mapping, and unmaps it at its end
                mapped.close()


def advance_together(stretches: Sequence[Stretch], buffer: memoryview) -> None:
    """Advance each stretch by one step: an equal share of `buffer`, or LONGER times that. Blocks. No frontier may occur twice.

    Raises the errors of `Stretch.next_bytes`; then no frontier has moved.
    """
    share = len(buffer) // len(stretches)
    steps = [
        (stretch, stretch.next_bytes(buffer[number * share : (number + 1) * share])) for number, stretch in enumerate(stretches)
    ]
    advance([(hasher, data) for stretch, data in steps for hasher in stretch.frontier.hashers])
    for stretch, data in steps:
        stretch.frontier.position += len(data)


def chunk_digest(descriptor: int, byte_range: ByteRange, hasher: Hasher | None = None) -> str | None:
    """Return the XXH3-128 of a part of a file; None if the file is shorter. `hasher`: a new one, which sees the bytes."""
    hasher, hashed = hasher or new_chunk_hasher(), 0
    for piece in read_pieces(descriptor, byte_range, short_ok=True):
        hasher.update(piece)
        hashed += len(piece)
    return hasher.hexdigest() if hashed == len(byte_range) else None


def read_pieces(descriptor: int, byte_range: ByteRange, *, short_ok: bool = False) -> Iterator[memoryview]:
    """Yield the bytes of a range in order, as views of one reused buffer. A view is valid until the next one is requested.

    Raises OSError, and EOFError if the file ends before the range (unless `short_ok`).
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
