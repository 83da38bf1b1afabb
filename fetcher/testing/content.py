"""Content that an origin serves: bytes of a known size, readable at any range, from memory or from a file.

Digests of a file are computed once, on first use. Its bytes are never held in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PIECE = 1024 * 1024
"""Bytes of one read when a digest reads all content."""


class Content:
    """Immutable bytes. `file` is their path, so that the kernel can send them, or None if it must not."""

    size: int
    file: Path | None = None

    def read(self, start: int, stop: int) -> bytes:
        raise NotImplementedError

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, self.size, PIECE):
            yield self.read(start, min(start + PIECE, self.size))

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        """The git blob id: `sha1("blob <size>\\0" + content)`."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


class BytesContent(Content):
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, start: int, stop: int) -> bytes:
        return self.data[start:stop]


class FileContent(Content):
    """Content of a file that does not change while it is served."""

    def __init__(self, file: Path) -> None:
        self.file: Path = file
        self.size = file.stat().st_size

    def read(self, start: int, stop: int) -> bytes:
        with self.file.open("rb") as opened:
            return os.pread(opened.fileno(), stop - start, start)


class FlippedBit(Content):
    """`original` with the lowest bit of the byte at `offset` flipped."""

    def __init__(self, original: Content, offset: int) -> None:
        self.original = original
        self.offset = offset
        self.size = original.size

    def read(self, start: int, stop: int) -> bytes:
        data = bytearray(self.original.read(start, stop))
        if start <= self.offset < stop:
            data[self.offset - start] ^= 1
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Slice:
    """The bytes `[start, stop)` of `content`: the body of a response."""

    content: Content
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self) -> bytes:
        return self.content.read(self.start, self.stop)


def content_of(what: bytes | Path | Content) -> Content:
    """Return the content of bytes in memory, or of a file that is read on request."""
    if isinstance(what, Content):
        return what
    return BytesContent(what) if isinstance(what, bytes) else FileContent(what)


def body_of(data: bytes) -> Slice:
    """Return a body that consists of `data`."""
    return Slice(BytesContent(data), 0, len(data))
