"""Read the header of a safetensors file. A header is refused unless it describes exactly the content of the file.

::

    8 bytes   length of the header, little endian
    n bytes   JSON: {"__metadata__": {str: str}, name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}, ...}
    the rest  the tensors, one after the other, without a gap, up to the end of the file

The safetensors package is the reference. This reader returns the same bytes for every file that the package reads, and refuses
every file that the package refuses. The rules at the edges are the same too (white space around the header, unknown fields,
overflow before a zero in a shape). `tests/loader/corpus.py` lists where this reader is stricter, with reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from fetcher.values import dataclass
from loader.checkpoint.dtypes import DTYPES, Dtype
from loader.checkpoint.files import Read
from loader.checkpoint.not_weights import HEAD, impostor
from loader.checkpoint.strict_json import parse, refuse_excess
from loader.errors import MalformedCheckpoint, shown

MAX_HEADER = 100_000_000
"""Bytes, as in the safetensors package."""

_U64 = 2**64 - 1
_PREFIX = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


class TensorInfo(NamedTuple):
    """A tensor: bytes `start` to `stop` (exclusive) of `file`, row-major and little-endian.

    A named tuple: a checkpoint may have 100,000 tensors, and a frozen dataclass takes three times as long to create.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    file: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        """The size of the tensor in bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file: `tensors` in file order, and the byte `data_start` where their data begins."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    data_start: int


class _InvalidField(Exception):
    """A problem in a field of a tensor's entry, or in the entry itself if `field` is empty."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem


def read_header(read: Read, *, size: int, path: str) -> Header:
    """Read the header of the open file of `size` bytes; errors and tensors name the file by `path`.

    Raises MalformedCheckpoint, and the errors of `read`.
    """
    try:
        length, document = _document(read, size, path)
    except MalformedCheckpoint as error:
        if problem := impostor(read(min(size, HEAD), 0)):
            raise MalformedCheckpoint(problem, path=path) from error
        raise
    metadata = _metadata(document.pop("__metadata__", None), path)
    data_start = _PREFIX + length
    tensors = _tensors(document, path, data_start)
    _refuse_gaps(tensors, path, data_start, size)
    return Header(tuple(tensors), metadata, data_start)


def _document(read: Read, size: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return the length of the header in bytes, and the header."""
    length = _length(read, size, path)
    try:
        document = parse(read(length, _PREFIX))
    except ValueError as error:
        raise MalformedCheckpoint(str(error), path=path, field="header") from None
    if not isinstance(document, dict):
        raise MalformedCheckpoint(f"{shown(document)} is not a JSON object", path=path, field="header")
    return length, document


def _length(read: Read, size: int, path: str) -> int:
    if size < _PREFIX:
        problem = f"the file has {size} bytes, less than the 8 bytes of the length; fetch it again"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    length = int.from_bytes(read(_PREFIX, 0), "little")
    if length > MAX_HEADER:
        problem = f"{length} bytes exceed the limit of {MAX_HEADER}"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    if length > size - _PREFIX:
        problem = f"{length} bytes, but only {size - _PREFIX} follow in the file"
        raise MalformedCheckpoint(problem, path=path, field="header length")
    return length


def _metadata(value: object, path: str) -> Mapping[str, str]:
    """Return the metadata. `null` means no metadata, as in the safetensors package."""
    if value is None:
        return MappingProxyType({})
    if not isinstance(value, dict):
        raise MalformedCheckpoint("not a JSON object", path=path, field="__metadata__")
    for key, text in value.items():
        if not isinstance(text, str):
            raise MalformedCheckpoint("the value is not a string", path=path, field=f"__metadata__[{shown(key)}]")
        if "\0" in key or "\0" in text:
            raise MalformedCheckpoint("contains a NUL character", path=path, field=f"__metadata__[{shown(key)}]")
    return MappingProxyType(value)


def _tensors(document: dict[str, Any], path: str, data_start: int) -> list[TensorInfo]:
    """Return the tensors by offset. Empty tensors at the same offset keep the order of the header."""
    tensors = []
    for name, entry in document.items():
        try:
            tensors.append(_tensor(name, entry, path, data_start))
        except _InvalidField as error:
            field = f"{shown(name)}.{error.field}" if error.field else shown(name)
            raise MalformedCheckpoint(error.problem, path=path, field=field) from None
    tensors.sort(key=attrgetter("start", "stop"))
    return tensors


def _tensor(name: str, entry: Any, path: str, data_start: int) -> TensorInfo:
    if "\0" in name:
        raise _InvalidField("", "the name contains a NUL character")
    if type(entry) is not dict:
        raise _InvalidField("", f"{shown(entry)} is not a JSON object")
    try:
        dtype, shape, offsets = _dtype(entry["dtype"]), entry["shape"], entry["data_offsets"]
    except KeyError as error:
        raise _InvalidField(error.args[0], "missing") from None
    if len(entry) > len(_FIELDS):
        _check_unknown_fields(entry)
    size = _size(shape, dtype)
    begin, end = _offsets(offsets)
    if end - begin != size:
        raise _InvalidField("data_offsets", f"{end - begin} bytes, but {dtype} of shape {shown(shape)} takes {size}")
    return TensorInfo(name, dtype, tuple(shape), path, data_start + begin, data_start + end)


def _check_unknown_fields(entry: dict[str, Any]) -> None:
    """Accept unknown fields, as the safetensors package does, but limit their nesting and numbers."""
    for field in entry.keys() - _FIELDS:
        try:
            refuse_excess(entry[field], depth=2)
        except ValueError as error:
            raise _InvalidField(shown(field), str(error)) from None


def _dtype(value: Any) -> Dtype:
    if type(value) is str and (dtype := DTYPES.get(value)):
        return dtype
    raise _InvalidField("dtype", f"{shown(value)} is not a dtype of safetensors")


def _size(shape: object, dtype: Dtype) -> int:
    """Return the size in bytes. No product may reach 2**64, even before a zero, as in the safetensors package."""
    if type(shape) is not list:
        raise _InvalidField("shape", "not a list")
    count = 1
    for extent in shape:
        if type(extent) is not int or not 0 <= extent <= _U64:
            raise _InvalidField("shape", f"{shown(extent)} is not an integer from 0 to 2**64 - 1")
        count *= extent
        if count > _U64:
            raise _InvalidField("shape", "the number of elements exceeds 2**64 - 1")
    bits = count * dtype.bits
    if bits > _U64:
        raise _InvalidField("shape", "the number of bits exceeds 2**64 - 1")
    if bits % 8:
        raise _InvalidField("shape", f"{count} elements of {dtype} take {bits} bits, which is not a whole number of bytes")
    return bits // 8


def _offsets(value: object) -> tuple[int, int]:
    if type(value) is not list or len(value) != 2:
        raise _InvalidField("data_offsets", "not a list of two numbers")
    begin, end = value
    if type(begin) is not int or type(end) is not int or begin < 0:
        raise _InvalidField("data_offsets", f"{shown(value)} are not two integers of at least 0")
    if begin > end:
        raise _InvalidField("data_offsets", f"{shown(value)} ends before it begins")
    return begin, end


def _refuse_gaps(tensors: list[TensorInfo], path: str, data_start: int, size: int) -> None:
    """Refuse overlaps and gaps: they let one file have two meanings."""
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            expected = position - data_start
            problem = "overlaps the previous tensor" if tensor.start < position else "leaves a gap before it"
            problem = f"begins at {tensor.start - data_start} instead of {expected}: {problem}"
            raise MalformedCheckpoint(problem, path=path, field=f"{shown(tensor.name)}.data_offsets")
        position = tensor.stop
    if position != size:
        field = f"{shown(tensors[-1].name)}.data_offsets" if tensors else "header"
        ends = f"the tensors end at byte {position - data_start} of the data, but the data has {size - data_start}"
        hint = "the file is truncated; fetch it again" if position > size else "no bytes are allowed after the tensors"
        raise MalformedCheckpoint(f"{ends}: {hint}", path=path, field=field)
