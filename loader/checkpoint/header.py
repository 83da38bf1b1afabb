"""What a safetensors file says it holds, refused unless it is exactly what the file holds.

::

    8 bytes   length of the header, little endian
    n bytes   JSON: {"__metadata__": {str: str}, name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...}
    the rest  the tensors, one behind the other, without a gap, up to the end of the file

The safetensors package is the reference: what it reads is read to the same bytes, what it refuses is refused, with the
same rules at the edges (white space around the header, unknown fields, overflow before a zero in a shape). Where this
reader is stricter, `tests/loader/test_against_safetensors.py` lists it with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from loader.checkpoint.dtypes import DTYPES, Dtype
from loader.checkpoint.files import read_bytes
from loader.checkpoint.impostors import impostor, read_head
from loader.checkpoint.strict_json import parse, refuse_excess
from loader.errors import MalformedCheckpoint, shown

MAX_HEADER = 100_000_000
"""Bytes, as in the safetensors package."""

_U64 = 2**64 - 1
_PREFIX = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


class TensorInfo(NamedTuple):
    """Bytes `start` to `stop` (not included) of `file` are the tensor, row-major and little-endian.

    A named tuple, since a checkpoint may have 100,000 of them and a frozen dataclass takes three times as long to make.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    file: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """`tensors` in the order in which they lie in the file; their data begins at byte `data_start`."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    data_start: int


class _Wrong(Exception):
    """What is wrong, in which field of an entry."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


def read_header(descriptor: int, *, size: int, path: str) -> Header:
    """The header of the open file of `size` bytes; `path` is what errors and tensors call it.

    Raises MalformedCheckpoint, FileReplaced, LocalIOError.
    """
    try:
        length, document = _document(descriptor, size, path)
    except MalformedCheckpoint as error:
        if problem := impostor(read_head(descriptor, path=path)):
            raise MalformedCheckpoint(problem, path=path) from error
        raise
    metadata = _metadata(document.pop("__metadata__", None), path)
    data_start = _PREFIX + length
    tensors = _tensors(document, path, data_start)
    _refuse_gaps(tensors, path, data_start, size)
    return Header(tuple(tensors), metadata, data_start)


def _document(descriptor: int, size: int, path: str) -> tuple[int, dict[str, Any]]:
    """The header, and how long it is."""
    length = _length(descriptor, size, path)
    try:
        document = parse(read_bytes(descriptor, length, _PREFIX, path=path))
    except ValueError as error:
        raise MalformedCheckpoint(str(error), path=path, field="header") from None
    if not isinstance(document, dict):
        raise MalformedCheckpoint(f"{shown(document)} is no JSON object", path=path, field="header")
    return length, document


def _length(descriptor: int, size: int, path: str) -> int:
    if size < _PREFIX:
        problem = f"the file has {size} bytes, fewer than the 8 of the length itself"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    length = int.from_bytes(read_bytes(descriptor, _PREFIX, 0, path=path), "little")
    if length > MAX_HEADER:
        problem = f"{length} bytes, more than the {MAX_HEADER} a header may have"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    if length > size - _PREFIX:
        problem = f"{length} bytes, more than the {size - _PREFIX} that follow in the file"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    return length


def _metadata(value: object, path: str) -> Mapping[str, str]:
    """`null` is none at all, as it is for the safetensors package."""
    if value is None:
        return MappingProxyType({})
    if not isinstance(value, dict):
        raise MalformedCheckpoint("it is no JSON object", path=path, field="__metadata__")
    for key, text in value.items():
        if not isinstance(text, str):
            raise MalformedCheckpoint("a value that is no string", path=path, field=f"__metadata__[{shown(key)}]")
        if "\0" in key or "\0" in text:
            raise MalformedCheckpoint("a NUL character", path=path, field=f"__metadata__[{shown(key)}]")
    return MappingProxyType(value)


def _tensors(document: dict[str, Any], path: str, data_start: int) -> list[TensorInfo]:
    """In the order of their offsets; of empty ones at the same place, in the order of the header."""
    tensors = []
    for name, entry in document.items():
        try:
            tensors.append(_tensor(name, entry, path, data_start))
        except _Wrong as wrong:
            field = f"{shown(name)}.{wrong.field}" if wrong.field else shown(name)
            raise MalformedCheckpoint(wrong.problem, path=path, field=field) from None
    tensors.sort(key=attrgetter("start", "stop"))
    return tensors


def _tensor(name: str, entry: Any, path: str, data_start: int) -> TensorInfo:
    if "\0" in name:
        raise _Wrong("", "a NUL character in the name")
    if type(entry) is not dict:
        raise _Wrong("", f"{shown(entry)} is no JSON object")
    try:
        dtype, shape, offsets = _dtype(entry["dtype"]), entry["shape"], entry["data_offsets"]
    except KeyError as error:
        raise _Wrong(error.args[0], "it is missing") from None
    if len(entry) > len(_FIELDS):
        _pass_over(entry)
    size = _size(shape, dtype)
    begin, end = _offsets(offsets)
    if end - begin != size:
        raise _Wrong("data_offsets", f"{end - begin} bytes, where {dtype} of shape {shown(shape)} takes {size}")
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, data_start + end)


def _pass_over(entry: dict[str, Any]) -> None:
    """Unknown fields are for whoever knows them, as in the safetensors package, but may not hold just anything."""
    for field in entry.keys() - _FIELDS:
        try:
            refuse_excess(entry[field], depth=2)
        except ValueError as error:
            raise _Wrong(shown(field), str(error)) from None


def _dtype(value: Any) -> Dtype:
    if type(value) is str and (dtype := DTYPES.get(value)):
        return dtype
    raise _Wrong("dtype", f"{shown(value)} is none that safetensors knows")


def _size(shape: object, dtype: Dtype) -> int:
    """Bytes. Each step must stay below 2**64, even if a zero follows: the safetensors package computes so."""
    if type(shape) is not list:
        raise _Wrong("shape", "it is no list")
    count = 1
    for extent in shape:
        if type(extent) is not int or not 0 <= extent <= _U64:
            raise _Wrong("shape", f"{shown(extent)} is no whole number from 0 to 2**64 - 1")
        count *= extent
        if count > _U64:
            raise _Wrong("shape", "the number of elements exceeds 2**64 - 1")
    bits = count * dtype.bits
    if bits > _U64:
        raise _Wrong("shape", "the number of bits exceeds 2**64 - 1")
    if bits % 8:
        raise _Wrong("shape", f"{count} elements of {dtype} are {bits} bits, no whole number of bytes")
    return bits // 8


def _offsets(value: object) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise _Wrong("data_offsets", "it is no list of two")
    begin, end = value
    if type(begin) is not int or type(end) is not int or begin < 0:
        raise _Wrong("data_offsets", f"{shown(value)} are not two whole numbers from 0 up")
    if begin > end:
        raise _Wrong("data_offsets", f"{shown(value)} ends before it begins")
    return begin, end


def _refuse_gaps(tensors: list[TensorInfo], path: str, data_start: int, size: int) -> None:
    """Bytes that two tensors share, or that none has, are where one file can be two things."""
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            before = position - data_start
            problem = "overlaps the tensor before it" if tensor.start < position else "leaves a hole before it"
            problem = f"begins at {tensor.start - data_start}, not at {before}: {problem}"
            raise MalformedCheckpoint(problem, path=path, field=f"{shown(tensor.name)}.data_offsets")
        position = tensor.stop
    if position != size:
        field = f"{shown(tensors[-1].name)}.data_offsets" if tensors else "header"
        ends = f"the tensors end at byte {position - data_start} of the data, which has {size - data_start}"
        hint = "the file is cut off" if position > size else "nothing may follow them"
        raise MalformedCheckpoint(f"{ends}: {hint}", path=path, field=field)
