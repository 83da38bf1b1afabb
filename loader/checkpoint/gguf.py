"""The size that a GGUF file must have according to its header. A shorter file is truncated.

::

    "GGUF", u32 version, u64 tensors, u64 pairs
    pairs     string key, u32 type, value
    tensors   string name, u32 dimensions, u64 extents, u32 type, u64 offset from the start of the data
    padding   to a multiple of `general.alignment`, where the data begins

A string is a u64 length and its bytes. All numbers are little-endian, or all are big-endian. `split.no` (from 0) and
`split.count` number the parts of a split model. Source: llama.cpp, `ggml/include/gguf.h` and `ggml/src/ggml-common.h`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import field

from fetcher.quantities import ceil_div
from fetcher.values import dataclass
from loader.checkpoint.files import FileIdentity, open_file, read_bytes
from loader.checkpoint.not_weights import impostor, read_head
from loader.errors import MalformedCheckpoint, shown

EXTENSION = ".gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT = "general.alignment"
_SPLIT = {b"split.no", b"split.count"}
_MOST_PARTS = 65_535
"""llama.cpp reads `split.no` and `split.count` as u16."""

MAX_HEADER = 256 * 1024 * 1024
"""Bytes. Vocabularies of 256,000 tokens with their merges take 15 MB."""

_PIECE = 1024 * 1024
_LONGEST_NAME = 65_535
_MOST_DIMENSIONS = 4
_MOST_LEVELS = 8
_U64 = 2**64 - 1

_LEAST_PAIR = 13
"""Bytes: an empty key, a type, a value of one byte."""

_LEAST_TENSOR = 24
"""Bytes: an empty name, the number of dimensions, a type, an offset."""

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, for each type of fixed size."""

_INTEGERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_UINT32 = 4
_STRING = 8
_ARRAY = 9

_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66),
    39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip
"""Elements and bytes of a block, for each tensor type. Of a tensor of another type only the offset is checked.

Compared one by one with `GGML_QUANT_SIZES` of gguf 0.19.0 (`gguf/constants.py`), and with the `static_assert` of each struct in
llama.cpp's `ggml/src/ggml-common.h`. Q8_1 (9) is left out: the two disagree (40 and 36 bytes), and no file contains it. Numbers
without a name in gguf are left out too."""


@dataclass(frozen=True, slots=True)
class Split:
    """The position of a file in a split model: part `number`, from 0, of `count`."""

    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """A GGUF file; `split` is None if the model is a single file."""

    identity: FileIdentity
    split: Split | None


def read_gguf(path: str) -> Gguf:
    """Read the header of the file at `path` and check that the file is complete.

    Raises NotFound, NotReadable, LocalIOError, FileReplaced, MalformedCheckpoint.
    """
    descriptor = open_file(path)
    try:
        identity = FileIdentity.of(descriptor)
        least, split = _read(descriptor, identity.size, path)
        identity.check(descriptor, path=path)
    finally:
        os.close(descriptor)
    if identity.size < least:
        problem = f"truncated: the file has {identity.size} bytes, but its header requires {least}; fetch it again"
        raise MalformedCheckpoint(problem, path=path)
    return Gguf(identity, split)


def _read(descriptor: int, size: int, path: str) -> tuple[int, Split | None]:
    """Return the smallest possible size of the file in bytes, and its position in a split model."""
    head = read_head(descriptor, path=path)
    if not head.startswith(_MAGIC):
        raise MalformedCheckpoint(impostor(head) or "not a GGUF file: it does not begin with GGUF; fetch it again", path=path)
    header = _Header(descriptor, size, path)
    pairs = _read_pairs(header)
    ends = [_read_end(header) for _ in range(header.tensors)]
    start = ceil_div(header.position, pairs.alignment) * pairs.alignment
    return start + max(ends) if ends else header.position, _split(pairs, header)


@dataclass(slots=True)
class _Pairs:
    """The values of the pairs that the size and the part depend on."""

    alignment: int = _DEFAULT_ALIGNMENT
    split: dict[bytes, int] = field(default_factory=dict)


def _read_pairs(header: _Header) -> _Pairs:
    pairs = _Pairs()
    for _ in range(header.pairs):
        key = header.string(_LONGEST_NAME, "a key")
        kind = header.u32()
        if key == _ALIGNMENT.encode():
            pairs.alignment = header.alignment(kind)
        elif key in _SPLIT:
            pairs.split[key] = header.integer(kind, key.decode())
        else:
            _skip_value(header, kind, 0)
    return pairs


def _split(pairs: _Pairs, header: _Header) -> Split | None:
    count, number = pairs.split.get(b"split.count", 0), pairs.split.get(b"split.no", 0)
    if count in (0, 1):
        return None
    if not 0 <= number < count <= _MOST_PARTS:
        header.refuse(f"split.no {number} does not fit split.count {count}")
    return Split(number, count)


def _skip_value(header: _Header, kind: int, depth: int) -> None:
    if kind in _SIZES:
        header.skip(_SIZES[kind])
    elif kind == _STRING:
        header.skip(header.u64())
    elif kind == _ARRAY and depth < _MOST_LEVELS:
        _skip_array(header, depth)
    else:
        header.refuse(f"unknown value type {kind}, or arrays nested too deep")


def _skip_array(header: _Header, depth: int) -> None:
    kind, count = header.u32(), header.u64()
    if kind in _SIZES:
        header.skip(count * _SIZES[kind])
        return
    header.expect(count, 8, "array elements")
    for _ in range(count):
        _skip_value(header, kind, depth + 1)


def _read_end(header: _Header) -> int:
    """Return the byte of the data where the tensor ends, or begins if its type is unknown."""
    name = header.string(_LONGEST_NAME, "a tensor's name")
    dimensions = header.u32()
    if dimensions > _MOST_DIMENSIONS:
        header.refuse(
            f"tensor {shown(name.decode(errors='replace'))} has {dimensions} dimensions; the limit is {_MOST_DIMENSIONS}"
        )
    count = 1
    for _ in range(dimensions):
        count *= header.u64()
    elements, size = _BLOCKS.get(header.u32(), (1, 0))
    end = header.u64() + ceil_div(count, elements) * size
    if count > _U64 or end > _U64:
        header.refuse(f"tensor {shown(name.decode(errors='replace'))} is larger than any file")
    return end


@dataclass(slots=True)
class _Window:
    start: int
    content: bytes


class _Header:
    """A reader of the header, piece by piece. It refuses every length and count that exceeds the file."""

    def __init__(self, descriptor: int, size: int, path: str) -> None:
        self._descriptor = descriptor
        self._size = min(size, MAX_HEADER)
        self._whole_file = size <= MAX_HEADER
        self._path = path
        self._window = _Window(0, b"")
        self._order = "<"
        self.position = len(_MAGIC)
        self._take_version()
        self.tensors, self.pairs = self.u64(), self.u64()
        self.expect(self.tensors, _LEAST_TENSOR, "tensors")
        self.expect(self.pairs, _LEAST_PAIR, "pairs")

    def u32(self) -> int:
        return int(struct.unpack(f"{self._order}I", self._take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack(f"{self._order}Q", self._take(8))[0])

    def string(self, longest: int, what: str) -> bytes:
        length = self.u64()
        if length > longest:
            self.refuse(f"{what} has {length} bytes; the limit is {longest}")
        return self._take(length)

    def alignment(self, kind: int) -> int:
        value = self.u32() if kind == _UINT32 else 0
        if value == 0 or value & (value - 1):
            self.refuse(f"{_ALIGNMENT} is not a power of two")
        return value

    def integer(self, kind: int, key: str) -> int:
        if kind not in _INTEGERS:
            self.refuse(f"{key} is not an integer")
        return int(struct.unpack(self._order + _INTEGERS[kind], self._take(_SIZES[kind]))[0])

    def skip(self, count: int) -> None:
        if count > self._size - self.position:
            self._refuse_end()
        self.position += count

    def expect(self, count: int, least: int, what: str) -> None:
        """Raise MalformedCheckpoint if the rest of the header has no room for `count` items of `least` bytes."""
        if count * least > self._size - self.position:
            if not self._whole_file:
                self.refuse(f"{count} {what} take more than {MAX_HEADER} bytes")
            self.refuse(f"the file has no room for {count} {what}: it is truncated or damaged; fetch it again")

    def refuse(self, problem: str) -> None:
        raise MalformedCheckpoint(problem, path=self._path, field="GGUF header")

    def _take_version(self) -> None:
        version = self.u32()
        if version & 0xFFFF == 0:  # big-endian; llama.cpp decides the same way
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in _VERSIONS:
            self.refuse(f"unsupported version {version}; versions 2 and 3 are supported")

    def _take(self, count: int) -> bytes:
        if count > self._size - self.position:
            self._refuse_end()
        first = self.position - self._window.start
        if first < 0 or first + count > len(self._window.content):
            self._fill(count)
            first = 0
        self.position += count
        return self._window.content[first : first + count]

    def _fill(self, count: int) -> None:
        length = min(max(_PIECE, count), self._size - self.position)
        self._window = _Window(self.position, read_bytes(self._descriptor, length, self.position, path=self._path))

    def _refuse_end(self) -> None:
        if not self._whole_file:
            self.refuse(f"it exceeds the limit of {MAX_HEADER} bytes")
        self.refuse(f"truncated: the header does not end within the {self._size} bytes of the file; fetch it again")
