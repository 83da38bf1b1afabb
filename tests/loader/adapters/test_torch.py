"""Torch tensors equal those of the safetensors package: dtype, shape and every bit."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import pytest

from tests.lab.availability import require_package

require_package("torch", extra="torch")

import torch
from safetensors import safe_open

from fetcher.errors import UsageError
from loader.adapters.torch import load, tensor, tensors
from loader.checkpoint.dtypes import DTYPES, Dtype
from loader.checkpoint.header import TensorInfo
from loader.errors import LoadError, MalformedCheckpoint
from loader.tensors.weights import open_weights
from tests.loader.making import content, entry

SHAPES = [(2, 8), (8,), (3, 1, 16), (0,), (4, 0, 2)]


def known(dtype: Dtype) -> bool:
    return not dtype.name.startswith("F6_")


def write(path: Path, tensors: Sequence[tuple[str, str, Sequence[int]]], *, header_length: int = 8) -> Path:
    """Write a file with these names, dtypes and shapes. The length of its header is `header_length` modulo 8."""
    entries, data = {}, b""
    for name, dtype, shape in tensors:
        size = prod(shape) * DTYPES[dtype].bits // 8
        entries[name] = entry(dtype, list(shape), len(data), len(data) + size)
        data += os.urandom(size)
    text = content(entries)[8:].decode()
    path.write_bytes(content(text + " " * ((header_length - len(text)) % 8), data))
    return path


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def by_the_package(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (expected.dtype, expected.shape)
        assert bits(ours[name]) == bits(expected)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


class TestDtypes:
    @pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES.values() if known(dtype)], ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_a_tensor_equals_that_of_the_safetensors_package(self, path: Path, dtype: Dtype, shape: tuple[int, ...]) -> None:
        write(path, [("a", dtype.name, shape)])
        assert_alike(load(path), by_the_package(path))

    @pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES.values() if not known(dtype)], ids=str)
    def test_a_dtype_that_torch_lacks_is_refused_as_by_the_package(self, path: Path, dtype: Dtype) -> None:
        write(path, [("a", dtype.name, (8,))])
        with pytest.raises(UsageError, match=f"cannot read 'a': torch .* has no dtype {dtype}; leave it out"):
            load(path)
        with pytest.raises(Exception, match=r"F6|float6"):
            by_the_package(path)

    def test_scalars_equal_those_of_the_package(self, path: Path) -> None:
        names = [dtype.name for dtype in DTYPES.values() if dtype.bits >= 8]
        write(path, [(name, name, ()) for name in names])
        assert_alike(load(path), by_the_package(path))

    def test_an_odd_last_dimension_of_f4_is_refused_as_by_the_package(self, path: Path) -> None:
        write(path, [("a", "F4", (2, 3))])
        with pytest.raises(MalformedCheckpoint, match=r"'a'\.shape: the last dimension is odd"):
            load(path)
        with pytest.raises(Exception, match="last dim be divisible by 2"):
            by_the_package(path)

    def test_a_shape_that_torch_does_not_support_is_an_error(self) -> None:
        info = TensorInfo("a", DTYPES["U8"], (0, 2**64 - 1), "f.safetensors", 8, 8)
        with pytest.raises(MalformedCheckpoint, match=re.escape("f.safetensors: 'a'.shape: torch does not support this shape")):
            tensor(info, memoryview(bytearray()))


class TestMemory:
    """Tensors are views of the memory that was read into."""

    def test_a_tensor_shares_the_memory_of_its_view_and_is_writable(self) -> None:
        memory = np.zeros(64, np.uint8)
        info = TensorInfo("a", DTYPES["BF16"], (4, 8), "f", 0, 64)
        made = tensor(info, memory.data)
        assert made.data_ptr() == memory.ctypes.data
        made.fill_(1)
        assert memory.tobytes() == b"\x80\x3f" * 32

    def test_the_memory_is_released_with_the_last_tensor_that_views_it(self) -> None:
        memory = np.zeros(64, np.uint8)
        gone = weakref.ref(memory)
        made = tensor(TensorInfo("a", DTYPES["F32"], (16,), "f", 0, 64), memory.data)
        part = made.view(torch.int32)[3:5]
        del memory, made
        assert gone() is not None
        del part
        assert gone() is None

    @pytest.mark.parametrize("header_length", range(1, 8))
    def test_unaligned_tensors_have_the_same_bits(self, path: Path, header_length: int) -> None:
        names = [dtype.name for dtype in DTYPES.values() if known(dtype)]
        write(path, [(name, name, (3, 8)) for name in names], header_length=header_length)
        ours = load(path)
        info = open_weights(path).checkpoint.tensors
        with open(path, "rb") as file:
            whole = file.read()
        for name, made in ours.items():
            assert bits(made) == whole[info[name].start : info[name].stop]
            assert made.data_ptr() % made.dtype.itemsize == 0

    def test_a_streamed_tensor_is_released_when_the_consumer_drops_it(self, path: Path) -> None:
        write(path, [(str(number), "F32", (1024, 1024)) for number in range(8)])
        gone = []
        for _, made in tensors(path, window=4 << 20):
            gone.append(weakref.ref(made.untyped_storage()))
            del made
        assert len(gone) == 8
        assert not any(reference() for reference in gone)


class TestOrder:
    def test_a_list_of_names_selects_and_orders_the_tensors(self, path: Path) -> None:
        write(path, [("a", "U8", (1,)), ("b", "U8", (2,)), ("c", "U8", (3,))])
        assert [(name, made.shape[0]) for name, made in tensors(path, ["c", "a"])] == [("c", 3), ("a", 1)]
        assert list(load(path, "name")) == ["a", "b", "c"]

    def test_open_weights_are_read_with_the_options_of_their_opening(self, path: Path) -> None:
        write(path, [("a", "U8", (1,))])
        assert list(load(open_weights(path, strategy="direct"))) == list(load(path, strategy="mmap")) == ["a"]

    def test_a_damaged_file_is_refused_before_anything_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"no header")
        with pytest.raises(LoadError, match="header length"):
            tensors(tmp_path)
