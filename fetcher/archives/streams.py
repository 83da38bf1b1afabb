"""Bounded streams for `tarfile`, `zipfile` and lzma.

`tarfile` and `zipfile` read headers and directories of any claimed length at once, and lzma allocates the memory that its input
asks for.
"""

from __future__ import annotations

import importlib
import lzma
import os
from typing import IO, Any, Protocol

from fetcher.errors import ConfigurationError, MalformedArchive

LONGEST_READ = 4 * 1024 * 1024
"""Maximum bytes of one read. Content is read in pieces of up to 1 MiB; the directory of a 20,000-member zip has some 2 MB."""
XZ_MEMORY = 96 * 1024 * 1024
"""Maximum memory in bytes of the xz decompressor; `xz -9` needs 65 MiB."""
ZSTD_WINDOW_LOG = 27
"""Maximum window of the zstd decompressor as a power of two: 128 MiB, which `zstd -d` accepts without being asked to."""
_INPUT = 64 * 1024


class Readable(Protocol):
    """A stream whose `read` returns at most `size` bytes, and none only at the end."""

    def read(self, size: int, /) -> bytes: ...


def _refuse_longer(size: int) -> None:
    if size > LONGEST_READ:
        raise MalformedArchive(f"the archive has a header or directory of more than {LONGEST_READ:,} bytes")


class BoundedFile:
    """A file that refuses a read of more than `LONGEST_READ` bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        _refuse_longer(size)
        data = self._file.read(size if size >= 0 else LONGEST_READ + 1)
        _refuse_longer(len(data))
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise MalformedArchive("a member of the archive has a negative offset")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: the opener closes the file."""


class ForwardStream:
    """A stream that can seek forwards only, as a tar that is read in order needs. `last`: the bytes of the last read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._position = 0
        self.last = b""

    def read(self, size: int, /) -> bytes:
        _refuse_longer(size)
        pieces, remaining = [], size
        while remaining and (piece := self._stream.read(remaining)):
            pieces.append(piece)
            remaining -= len(piece)
        self._position += size - remaining
        self.last = b"".join(pieces)
        return self.last

    def write(self, data: bytes, /) -> int:
        raise NotImplementedError("this stream is read-only")

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, /) -> int:
        """Seek forwards, at most to the end. Raises MalformedArchive for a step back: no valid archive needs one."""
        if offset < self._position:
            raise MalformedArchive("the members of the archive are not in order")
        while (remaining := offset - self._position) and self.read(min(remaining, LONGEST_READ // 4)):
            pass
        return self._position

    def close(self) -> None:
        """Do nothing: the opener closes the stream."""


class XzStream:
    """The content of an xz file. Unlike `lzma.open`, it limits the memory that the header can ask for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes. Raises EOFError if the stream is truncated, and LZMAError."""
        while not self._decompressor.eof:
            compressed = self._file.read(_INPUT) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not compressed:
                raise EOFError("the compressed stream is truncated")
            if data := self._decompressor.decompress(compressed, size):
                return data
        return b""


def zstd_stream(file: IO[bytes]) -> Readable:
    """The content of a zstd file, with a limit of the memory that the header can ask for.

    Raises ConfigurationError if this Python lacks zstd: it came with 3.14. Reading raises MalformedArchive.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return _ZstdStream(importlib.import_module(name), file)
        except ImportError:
            continue
    raise ConfigurationError("archives in zstd need a package; run pip install 'weightlift[oci]'")


class _ZstdStream:
    def __init__(self, zstd: Any, file: IO[bytes]) -> None:
        self._error = zstd.ZstdError
        options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._stream: IO[bytes] = zstd.ZstdFile(file, options=options)

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes. Raises EOFError if the stream is truncated, MalformedArchive."""
        try:
            return self._stream.read(size)
        except self._error as error:
            raise MalformedArchive(f"the archive is not readable as zstd: {error}; fetch it again") from error
