"""The checksums that a store publishes: which of them can be checked, MD5 in order, and CRCs of chunks in any order.

The thread that writes a chunk computes its CRCs while the bytes are in cache, one for each segment: what lies between two
borders of chunks or of the store's parts. They are combined at the end. An MD5 cannot be combined, so it follows the
contiguous prefix like SHA-256 (`frontier`), also the MD5 of the MD5s of parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import xxhash

from fetcher.artifact import Checksum, ChecksumAlgorithm, RemoteFile
from fetcher.integrity import crc
from fetcher.integrity.digests import new_chunk_hasher
from fetcher.integrity.hasher import Hasher
from fetcher.planning.borders import Borders
from fetcher.values import dataclass


def checkable(file: RemoteFile) -> tuple[Checksum, ...]:
    """Return the checksums of `file` that can be compared: CRCs need the extension, and parts have to make up the file."""
    return tuple(each for each in file.checksums if (each.algorithm == "md5" or crc.available()) and _fits(each, file.size))


def in_order(file: RemoteFile) -> tuple[Checksum, ...]:
    """Return those that need the bytes in order."""
    return tuple(each for each in checkable(file) if each.algorithm == "md5")


def _fits(checksum: Checksum, size: int | None) -> bool:
    parts = checksum.parts
    return not parts or (min(parts) > 0 and size in (None, sum(parts)))


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` bytes between two borders, and their CRC by each algorithm, in the order of the file's algorithms."""

    length: int
    values: tuple[int, ...]


class ChunkHasher:
    """A running XXH3-128 of a chunk that begins at byte `position`, with the CRCs of its segments."""

    __slots__ = ("_algorithms", "_borders", "_closed", "_open", "_position", "_xxh3")

    def __init__(self, algorithms: Sequence[ChecksumAlgorithm], borders: Borders, position: int) -> None:
        self._algorithms = algorithms
        self._borders = borders
        self._position = position
        self._xxh3 = xxhash.xxh3_128()
        self._closed: list[Segment] = []
        self._open = self._empty()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._xxh3.update(data)
        for piece in self._borders.cut(memoryview(data), self._position):
            values = tuple(
                crc.updated(each, value, piece) for each, value in zip(self._algorithms, self._open.values, strict=True)
            )
            self._open = Segment(self._open.length + len(piece), values)
            self._position += len(piece)
            if self._position in self._borders:
                self._closed.append(self._open)
                self._open = self._empty()

    def hexdigest(self) -> str:
        """Return the XXH3-128."""
        return self._xxh3.hexdigest()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments so far, in order. The last one may be unfinished."""
        return (*self._closed, self._open) if self._open.length else tuple(self._closed)

    def _empty(self) -> Segment:
        return Segment(0, (0,) * len(self._algorithms))


class CrcCheck:
    """The CRCs of one file. It takes chunks in any order, also from several threads. A chunk that comes again counts anew."""

    __slots__ = ("_algorithms", "_borders", "_expected", "_segments")

    def __init__(self, file: RemoteFile) -> None:
        self._expected = [each for each in checkable(file) if each.algorithm in crc.WIDTHS]
        self._algorithms = sorted({each.algorithm for each in self._expected})
        self._borders = Borders(each.parts for each in self._expected)
        self._segments: dict[int, tuple[Segment, ...]] = {}

    def new_hasher(self, position: int) -> Hasher:
        """Return a running XXH3-128 for the chunk at byte `position`, with the CRCs that the file needs."""
        return ChunkHasher(self._algorithms, self._borders, position) if self._algorithms else new_chunk_hasher()

    def add(self, index: int, hasher: Hasher) -> None:
        """Take the CRCs of chunk `index`. `hasher` is one of `new_hasher` that has seen the whole chunk."""
        if isinstance(hasher, ChunkHasher):
            self._segments[index] = hasher.segments

    def drop(self, index: int) -> None:
        """Forget chunk `index`."""
        self._segments.pop(index, None)

    def clear(self) -> None:
        self._segments.clear()

    def missing(self, indexes: Iterable[int]) -> list[int]:
        """Return those of `indexes` whose CRCs are needed and unknown: their bytes were not received by this process."""
        return [index for index in indexes if index not in self._segments] if self._algorithms else []

    def mismatch(self) -> tuple[Checksum, str] | None:
        """Return the first published CRC that differs, and the actual one; None if all agree. Call it after the last chunk."""
        for expected in self._expected:
            actual = replace(expected, hex=self._computed(expected).hex())
            if actual != expected:
                return expected, str(actual)
        return None

    def _computed(self, checksum: Checksum) -> bytes:
        algorithm = checksum.algorithm
        width, column = crc.WIDTHS[algorithm], self._algorithms.index(algorithm)
        segments = ((each.length, each.values[column]) for _, chunk in sorted(self._segments.items()) for each in chunk)
        if not checksum.parts:
            return _joined(algorithm, segments, None).to_bytes(width)
        parts = b"".join(_joined(algorithm, segments, size).to_bytes(width) for size in checksum.parts)
        return crc.updated(algorithm, 0, parts).to_bytes(width)


def _joined(algorithm: ChecksumAlgorithm, segments: Iterator[tuple[int, int]], size: int | None) -> int:
    """Return the CRC of the next segments that make up `size` bytes, or of all."""
    value = total = 0
    while size is None or total < size:
        following = next(segments, None)
        if following is None:
            break
        value = crc.combined(algorithm, value, following[1], following[0])
        total += following[0]
    return value
