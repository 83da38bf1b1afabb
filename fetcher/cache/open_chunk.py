"""A chunk of an open file, for others. One of a fetch under way is compared with its journal before a byte of it is sent.

::

    compared    reads the whole chunk, piece by piece: its hash is the journal's, and the hash of each piece is kept
    read        reads a piece again to be sent: its hash is the one that was kept, or the chunk is gone

The file may change between the two. So what is sent is what was compared, and an upload has a piece in memory, not a chunk.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import xxhash

from fetcher.artifact import ByteRange
from fetcher.filesystem import filled
from fetcher.quantities import ceil_div
from fetcher.store.following import StagedChunk
from fetcher.values import dataclass

PIECE = 1024 * 1024
"""Bytes that are read, and with TLS sent, in one call: see `serving.sending.BUFFER`."""


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """`part` of the open file `descriptor`.

    `pieces`: the XXH3-128 of each `PIECE` bytes of it, as they were compared; None if the file cannot change.
    """

    descriptor: int
    part: ByteRange
    pieces: tuple[bytes, ...] | None = None

    def read(self, position: int, into: memoryview) -> tuple[int, memoryview]:
        """Read the piece with the byte at `position`. Return where it begins, and its bytes, which are in `into`.

        Raises EOFError if they are gone, or others than those that were compared.
        """
        index = (position - self.part.start) // PIECE
        piece = _piece(self.part, index)
        data = into[: len(piece)]
        with suppress(OSError):
            if filled(self.descriptor, data, piece.start) and (
                self.pieces is None or xxhash.xxh3_128_digest(data) == self.pieces[index]
            ):
                return piece.start, data
        raise EOFError

    def close(self) -> None:
        os.close(self.descriptor)


def compared(chunk: StagedChunk, buffer: memoryview) -> OpenChunk | None:
    """Open a chunk whose bytes are those of the journal, in a file that still has its name; None if they are others, or gone.

    `buffer` has room for a piece of it.
    """
    with suppress(OSError):
        descriptor = chunk.open()
        try:
            status = os.fstat(descriptor)
            pieces = _hashed(descriptor, chunk, buffer) if stat.S_ISREG(status.st_mode) else None
            if pieces is not None and chunk.is_of(status):
                found, descriptor = OpenChunk(descriptor, chunk.part, pieces), -1
                return found
        finally:
            if descriptor >= 0:
                os.close(descriptor)
    return None


def _hashed(descriptor: int, chunk: StagedChunk, buffer: memoryview) -> tuple[bytes, ...] | None:
    """The hash of each piece, if that of all of them is the chunk's. Raises OSError."""
    whole, pieces = xxhash.xxh3_128(), []
    for index in range(ceil_div(len(chunk.part), PIECE)):
        piece = _piece(chunk.part, index)
        data = buffer[: len(piece)]
        if not filled(descriptor, data, piece.start):
            return None
        whole.update(data)
        pieces.append(xxhash.xxh3_128_digest(data))
    return tuple(pieces) if whole.hexdigest() == chunk.xxh3 else None


def _piece(part: ByteRange, index: int) -> ByteRange:
    start = part.start + index * PIECE
    return ByteRange(start, min(start + PIECE, part.stop))
