"""A GGUF file has the size that its header requires, and no number in the header is trusted beyond the end of the file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from loader.checkpoint.gguf import Split, read_gguf
from loader.errors import MalformedCheckpoint
from tests.loader.making import gguf, gguf_part

SIZES = {"a": 100, "b": 4000}


def check(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    return read_gguf(str(path)).identity.size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def pair(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
def test_both_versions_and_byte_orders_are_read(path: Path, version: int, order: str) -> None:
    content = gguf(SIZES, version=version, order=order)
    assert check(path, content) == len(content)
    with pytest.raises(MalformedCheckpoint, match="truncated"):
        check(path, content[:-200])


def test_pairs_of_every_type_are_skipped(path: Path) -> None:
    strings = struct.pack("<IQ", 8, 2) + (struct.pack("<Q", 3) + b"abc") * 2
    nested = struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 3) + b"123"
    pairs = pair("u8", 0, b"1") + pair("f64", 12, bytes(8)) + pair("tokens", 9, strings) + pair("nested", 9, nested)
    content = gguf(SIZES, pairs=pairs, pair_count=4)
    assert check(path, content) == len(content)


def test_the_alignment_of_the_header_is_used(path: Path) -> None:
    content = gguf(SIZES, pairs=pair("general.alignment", 4, struct.pack("<I", 1 << 20)), pair_count=1)
    with pytest.raises(MalformedCheckpoint, match="requires 10"):
        check(path, content)


@pytest.mark.parametrize("kind", [2, 4, 5, 10])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_part_has_its_number(path: Path, kind: int, order: str) -> None:
    path.write_bytes(gguf_part(2, 3, kind=kind, order=order))
    assert read_gguf(str(path)).split == Split(1, 3)


def test_a_single_part_is_not_a_split(path: Path) -> None:
    path.write_bytes(gguf_part(1, 1))
    assert read_gguf(str(path)).split is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gguf_part(4, 3), "split.no 3 does not fit split.count 3"),
        (gguf_part(1, 2**40, kind=10), "split.no 0 does not fit split.count 1099511627776"),
        (gguf_part(1, -1, kind=5), "split.no 0 does not fit split.count -1"),
        (gguf({}, pairs=pair("split.count", 6, bytes(4)), pair_count=1), "split.count is not an integer"),
    ],
)
def test_an_impossible_part_number_is_refused(path: Path, content: bytes, words: str) -> None:
    with pytest.raises(MalformedCheckpoint, match=words):
        check(path, content)


@pytest.mark.parametrize(("kind", "elements", "size"), [(12, 256, 144), (39, 32, 17), (40, 64, 36), (41, 128, 18)])
def test_blocks_have_the_sizes_of_their_type(path: Path, kind: int, elements: int, size: int) -> None:
    """Q4_K, MXFP4, NVFP4, Q1_0: the file has ten blocks, and ends with the last one."""
    info = struct.pack("<Q", 1) + b"a" + struct.pack("<IQIQ", 1, 10 * elements, kind, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info
    whole = header + bytes(-len(header) % 32) + bytes(10 * size)
    assert check(path, whole) == len(whole)
    with pytest.raises(MalformedCheckpoint, match="truncated"):
        check(path, whole[:-1])


def test_a_file_without_tensors_is_valid(path: Path) -> None:
    assert check(path, gguf({}))


def test_a_file_that_ends_too_early_is_refused_at_every_length(path: Path) -> None:
    content = gguf(SIZES, pairs=pair("tokens", 9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 3) + b"abc"), pair_count=1)
    needed = len(content) - len(content) % 32 - 96  # the last tensor's padding may be missing
    for length in range(0, needed, 7):
        with pytest.raises(MalformedCheckpoint):
            check(path, content[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gguf({}, version=1), "unsupported version 1; versions 2 and 3 are supported"),
        (gguf({}, version=4), "version 4"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0) + bytes(100), "no room for 9223372036854775808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63) + bytes(100), "no room for 9223372036854775808 pairs"),
        (gguf({}, pairs=pair("x", 13, b""), pair_count=1) + bytes(99), "type 13"),
        (gguf({}, pairs=pair("x", 8, struct.pack("<Q", 2**64 - 1)), pair_count=1), "the header does not end within"),
        (gguf({}, pairs=pair("x", 9, struct.pack("<IQ", 0, 2**63)), pair_count=1), "the header does not end within"),
        (gguf({}, pairs=pair("x", 9, struct.pack("<IQ", 9, 1) * 20), pair_count=1) + bytes(99), "nested too deep"),
        (gguf({}, pairs=pair("general.alignment", 4, bytes(4)), pair_count=1), "not a power of two"),
        (b"GGUX" + bytes(40), "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"", "not a GGUF file"),
    ],
)
def test_an_invalid_file_is_refused(path: Path, content: bytes, words: str) -> None:
    with pytest.raises(MalformedCheckpoint, match=words):
        check(path, content)


def test_a_tensor_larger_than_any_file_is_refused(path: Path) -> None:
    info = struct.pack("<Q", 1) + b"a" + struct.pack("<IQQIQ", 2, 2**63, 4, 0, 0)
    with pytest.raises(MalformedCheckpoint, match="'a' is larger than any file"):
        check(path, b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info + bytes(100))
