"""A valid header is read exactly. An invalid header is refused with the file and the field."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from loader.checkpoint.dtypes import DTYPES
from loader.checkpoint.files import reading
from loader.checkpoint.header import Header, TensorInfo, read_header
from loader.checkpoint.index import read_checkpoint
from loader.errors import MalformedCheckpoint
from tests.loader.corpus import DATA, READ, Refused, each_refused
from tests.loader.making import content, entry


def header_of(path: Path, whole: bytes) -> Header:
    path.write_bytes(whole)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_header(reading(descriptor, path=str(path)), size=len(whole), path=str(path))
    finally:
        os.close(descriptor)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


class TestValidHeaders:
    def test_a_tensor_has_its_byte_range_in_the_file(self, path: Path) -> None:
        whole = content({"norm": entry("F32", [3], 4, 16), "step": entry("I32", [], 0, 4)}, DATA)
        start = len(whole) - 16
        assert header_of(path, whole).tensors == (
            TensorInfo("step", DTYPES["I32"], (), str(path), start, start + 4),
            TensorInfo("norm", DTYPES["F32"], (3,), str(path), start + 4, start + 16),
        )

    def test_tensors_are_in_the_order_of_their_data(self, path: Path) -> None:
        names = [tensor.name for tensor in header_of(path, READ["tensors in another order than their data"]).tensors]
        assert names == ["c", "a", "b"]

    def test_empty_tensors_at_the_same_offset_keep_the_order_of_the_header(self, path: Path) -> None:
        names = ("t.9", "t.10", "a", "t.1")
        whole = content({"full": entry("U8", [1], 0, 1)} | {name: entry("U8", [0], 1, 1) for name in names}, b"\0")
        assert [tensor.name for tensor in header_of(path, whole).tensors] == ["full", *names]

    def test_the_data_begins_after_the_header_and_its_padding(self, path: Path) -> None:
        assert header_of(path, content("{}   ")).data_start == 13

    def test_a_tensor_knows_its_size(self, path: Path) -> None:
        (tensor,) = header_of(path, READ["four bits, evenly"]).tensors
        assert (tensor.size, tensor.shape) == (16, (32,))

    def test_metadata_is_returned_unchanged(self, path: Path) -> None:
        assert header_of(path, content({"__metadata__": {"format": "pt", "": ""}})).metadata == {"format": "pt", "": ""}

    @pytest.mark.parametrize("header", ["{}", '{"__metadata__":null}', '{"__metadata__":{}}'])
    def test_missing_metadata_is_empty(self, path: Path, header: str) -> None:
        assert header_of(path, content(header)).metadata == {}

    def test_tensors_and_metadata_are_immutable(self, path: Path) -> None:
        header = header_of(path, content({"__metadata__": {"a": "b"}, "t": entry("U8", [1], 0, 1)}, b"\0"))
        with pytest.raises(TypeError):
            header.metadata["a"] = "c"  # type: ignore[index]
        with pytest.raises(AttributeError):
            header.tensors[0].start = 0  # type: ignore[misc]


class TestInvalidHeaders:
    @each_refused
    def test_the_error_names_the_file_and_the_field(self, path: Path, case: Refused) -> None:
        with pytest.raises(MalformedCheckpoint) as caught:
            header_of(path, case.content)
        error = caught.value
        assert (error.path, error.field) == (str(path), case.field)
        assert case.words in error.problem
        assert error.sentence() == " ".join(f"MalformedCheckpoint: {path}: {case.field}: {error.problem}".split())

    def test_a_name_in_a_message_is_escaped_and_shortened(self, path: Path) -> None:
        with pytest.raises(MalformedCheckpoint) as caught:
            header_of(path, content({"\x1b[2J" + "x" * 1_000_000: entry("U8", [1], 0, 2)}, b"\0\0"))
        assert str(caught.value).startswith(f"{path}: '\\x1b[2J")
        assert len(str(caught.value)) < len(str(path)) + 300

    def test_a_value_in_a_message_is_escaped_and_shortened(self, path: Path) -> None:
        with pytest.raises(MalformedCheckpoint) as caught:
            header_of(path, content({"t": {**entry("U8", [1], 0, 1), "dtype": [["\u202e" * 1000] * 10] * 100}}, b"\0"))
        assert str(caught.value).isascii()
        assert len(str(caught.value)) < len(str(path)) + 10_000

    def test_a_header_above_the_limit_is_refused_even_if_the_file_is_long_enough(self, path: Path) -> None:
        path.write_bytes(content("{}", length=100_000_001))
        os.truncate(path, 8 + 100_000_001)
        with pytest.raises(MalformedCheckpoint, match="header length: 100000001 bytes exceed the limit of 100000000"):
            read_checkpoint(path)

    @pytest.mark.parametrize("length", [99_999_999, 100_000_001, 2**62])
    def test_no_memory_is_allocated_for_an_impossible_header(self, path: Path, length: int) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(MalformedCheckpoint, match="header length"):
                header_of(path, content("{}", length=length))
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_no_memory_is_allocated_for_an_impossible_tensor(self, path: Path) -> None:
        tracemalloc.start()
        try:
            with pytest.raises(MalformedCheckpoint, match="truncated"):
                header_of(path, content({"t": entry("U8", [2**60], 0, 2**60)}))
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
