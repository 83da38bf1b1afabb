"""Streams that `tarfile` and `zipfile` may be let loose on: both read headers and directories whole, at whatever length those
claim to have, and lzma takes as much memory as its input asks for."""

from __future__ import annotations

import lzma
import os
from typing import IO, Protocol

from fetcher.errors import MalformedArchive

LONGEST_READ = 4 * 1024 * 1024
"""Bytes of one read. Content is read in pieces of 1 MiB at most; the directory of a zip of 20,000 members has some 2 MB."""
XZ_MEMORY = 96 * 1024 * 1024
"""Bytes that its decompressor may take; `xz -9` needs 65 MiB."""
_INPUT = 64 * 1024


class Readable(Protocol):
    """At most `size` bytes a call, none only at the end."""

    def read(self, size: int, /) -> bytes: ...


def _refuse_longer(size: int) -> None:
    if size > LONGEST_READ:
        raise MalformedArchive(f"the archive has a header or directory of more than {LONGEST_READ:,} bytes")


class BoundedFile:
    """A file of which nobody reads more than `LONGEST_READ` at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        _refuse_longer(size)
        found = self._file.read(size if size >= 0 else LONGEST_READ + 1)
        _refuse_longer(len(found))
        return found

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise MalformedArchive("the archive says that a member begins before it")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """It is its opener's to close."""


class ForwardStream:
    """A stream that knows its position and can go forward: what a tar needs that is read in order. `last`: the last read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._position = 0
        self.last = b""

    def read(self, size: int, /) -> bytes:
        _refuse_longer(size)
        pieces, left = [], size
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        self._position += size - left
        self.last = b"".join(pieces)
        return self.last

    def write(self, data: bytes, /) -> int:
        raise NotImplementedError("it is only read")

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, /) -> int:
        """Ends where the stream ends, if that comes first. Going back is what no honest archive asks for."""
        if offset < self._position:
            raise MalformedArchive("the archive is not in order")
        while (left := offset - self._position) and self.read(min(left, LONGEST_READ // 4)):
            pass
        return self._position

    def close(self) -> None:
        """It is its opener's to close."""


class XzStream:
    """What is in an xz file, with a bound on the memory that its header may ask for, which `lzma.open` does not have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        """Raises EOFError when the end comes too early, and LZMAError."""
        while not self._decompressor.eof:
            given = self._file.read(_INPUT) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not given:
                raise EOFError("the compressed stream ends early")
            if found := self._decompressor.decompress(given, size):
                return found
        return b""
