"""How long a GGUF file must be, by its own header: one that is shorter was cut off.

::

    "GGUF", u32 version, u64 tensors, u64 pairs
    pairs     string key, u32 type, value
    tensors   string name, u32 dimensions, u64 extents, u32 type, u64 offset from the start of the data
    padding   up to a multiple of `general.alignment`; the data begin there

A string is a u64 length and its bytes. Numbers are little endian, or big endian all of them. `split.no` (from 0) and
`split.count` say which part of a set it is. Facts are from llama.cpp's `ggml/include/gguf.h` and `ggml/src/ggml-common.h`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from fetcher.quantities import ceil_div
from loader.errors import MalformedCheckpoint, shown
from loader.files import FileIdentity, open_file, read_bytes
from loader.impostors import impostor, read_head

EXTENSION = ".gguf"

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT = "general.alignment"
_SPLIT = {b"split.no", b"split.count"}
_MOST_PARTS = 65_535
"""llama.cpp reads both as u16."""

MAX_HEADER = 256 * 1024 * 1024
"""Bytes. Vocabularies of 256,000 tokens with their merges take 15 MB."""

_PIECE = 1024 * 1024
_LONGEST_NAME = 65_535
_MOST_DIMENSIONS = 4
_MOST_LEVELS = 8
_U64 = 2**64 - 1

_LEAST_PAIR = 13
"""Bytes: a key of no length, a type, and a value of one byte."""

_LEAST_TENSOR = 24
"""Bytes: a name of no length, the number of dimensions, a type, an offset."""

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value of each type with a fixed size."""

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
"""Of each type of tensor, how many elements a block has, and how many bytes. Of others only the offset is known.

Compared one by one with `GGML_QUANT_SIZES` of gguf 0.19.0 (`gguf/constants.py`), and with the `static_assert` of each struct in
llama.cpp's `ggml/src/ggml-common.h`. They disagree about Q8_1 (9), 40 bytes and 36, which lives in memory alone, so it is left
out, as are the numbers that gguf does not name."""


@dataclass(frozen=True, slots=True)
class Split:
    """Part `number`, from 0, of `count`."""

    number: int
    count: int


@dataclass(frozen=True, slots=True)
class Gguf:
    """`split`: which part it is, where there are several."""

    identity: FileIdentity
    split: Split | None


def read_gguf(path: str) -> Gguf:
    """Of the file at `path`, which is sound and as long as its header says.

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
        problem = f"it has {identity.size} bytes, and its header announces {least}: the file is cut off; fetch it again"
        raise MalformedCheckpoint(problem, path=path)
    return Gguf(identity, split)


def _read(descriptor: int, size: int, path: str) -> tuple[int, Split | None]:
    """The least size, and which part it is."""
    head = read_head(descriptor, path=path)
    if not head.startswith(_MAGIC):
        raise MalformedCheckpoint(impostor(head) or "it is no GGUF file: it does not begin with GGUF", path=path)
    header = _Header(descriptor, size, path)
    said = _read_pairs(header)
    ends = [_read_end(header) for _ in range(header.tensors)]
    start = ceil_div(header.position, said.alignment) * said.alignment
    return start + max(ends) if ends else header.position, _split(said, header)


@dataclass(slots=True)
class _Said:
    """What the pairs say that matters here."""

    alignment: int = _DEFAULT_ALIGNMENT
    split: dict[bytes, int] = field(default_factory=dict)


def _read_pairs(header: _Header) -> _Said:
    said = _Said()
    for _ in range(header.pairs):
        key = header.string(_LONGEST_NAME, "a key")
        kind = header.u32()
        if key == _ALIGNMENT.encode():
            said.alignment = header.alignment(kind)
        elif key in _SPLIT:
            said.split[key] = header.integer(kind, key.decode())
        else:
            _pass_over(header, kind, 0)
    return said


def _split(said: _Said, header: _Header) -> Split | None:
    count, number = said.split.get(b"split.count", 0), said.split.get(b"split.no", 0)
    if count in (0, 1):
        return None
    if not 0 <= number < count <= _MOST_PARTS:
        header.refuse(f"split.no {number} of split.count {count}")
    return Split(number, count)


def _pass_over(header: _Header, kind: int, depth: int) -> None:
    if kind in _SIZES:
        header.skip(_SIZES[kind])
    elif kind == _STRING:
        header.skip(header.u64())
    elif kind == _ARRAY and depth < _MOST_LEVELS:
        _pass_over_array(header, depth)
    else:
        header.refuse(f"a value of type {kind}, which GGUF does not have, or arrays nested too deep")


def _pass_over_array(header: _Header, depth: int) -> None:
    kind, count = header.u32(), header.u64()
    if kind in _SIZES:
        header.skip(count * _SIZES[kind])
        return
    header.expect(count, 8, "an array")
    for _ in range(count):
        _pass_over(header, kind, depth + 1)


def _read_end(header: _Header) -> int:
    """Where a tensor ends in the data, at least."""
    name = header.string(_LONGEST_NAME, "a tensor's name")
    dimensions = header.u32()
    if dimensions > _MOST_DIMENSIONS:
        header.refuse(f"tensor {shown(name.decode(errors='replace'))} has {dimensions} dimensions, more than 4")
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
    """The header from the front, a piece at a time. Nothing of it is believed further than the file reaches."""

    def __init__(self, descriptor: int, size: int, path: str) -> None:
        self._descriptor = descriptor
        self._size = min(size, MAX_HEADER)
        self._cut_off = size <= MAX_HEADER
        self._path = path
        self._window = _Window(0, b"")
        self._order = "<"
        self.position = len(_MAGIC)
        self._take_version()
        self.tensors, self.pairs = self.u64(), self.u64()
        self.expect(self.tensors, _LEAST_TENSOR, "the tensors")
        self.expect(self.pairs, _LEAST_PAIR, "the pairs")

    def u32(self) -> int:
        return int(struct.unpack(f"{self._order}I", self._take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack(f"{self._order}Q", self._take(8))[0])

    def string(self, longest: int, what: str) -> bytes:
        length = self.u64()
        if length > longest:
            self.refuse(f"{what} of {length} bytes, more than {longest}")
        return self._take(length)

    def alignment(self, kind: int) -> int:
        value = self.u32() if kind == _UINT32 else 0
        if value == 0 or value & (value - 1):
            self.refuse(f"{_ALIGNMENT} is no power of two")
        return value

    def integer(self, kind: int, key: str) -> int:
        if kind not in _INTEGERS:
            self.refuse(f"{key} is no whole number")
        return int(struct.unpack(self._order + _INTEGERS[kind], self._take(_SIZES[kind]))[0])

    def skip(self, count: int) -> None:
        if count > self._size - self.position:
            self._refuse_end()
        self.position += count

    def expect(self, count: int, least: int, what: str) -> None:
        """Raises MalformedCheckpoint unless there is room for so many of at least so many bytes each."""
        if count * least > self._size - self.position:
            if not self._cut_off:
                self.refuse(f"{what} take more than {MAX_HEADER} bytes")
            self.refuse(f"{what} are {count}, more than the rest of the file has room for: it is cut off or damaged")

    def refuse(self, problem: str) -> None:
        raise MalformedCheckpoint(problem, path=self._path, field="GGUF header")

    def _take_version(self) -> None:
        version = self.u32()
        if version & 0xFFFF == 0:  # as llama.cpp tells the other byte order
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in _VERSIONS:
            self.refuse(f"version {version}; there are 2 and 3")

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
        if not self._cut_off:
            self.refuse(f"more than the {MAX_HEADER} bytes that a header may have")
        self.refuse(f"it does not end within the {self._size} bytes of the file: the file is cut off; fetch it again")
