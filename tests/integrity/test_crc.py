"""The CRCs equal those of a computation bit by bit, for all instructions, lengths, alignments and splits."""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import ChecksumAlgorithm
from fetcher.integrity import crc
from fetcher.integrity.crc import WIDTHS, combined, updated
from fetcher.testing.checkpoint import random_bytes
from tests.lab.availability import missing

_crc: Any = importlib.import_module("fetcher.integrity._crc") if crc.available() else None
CONTENT = random_bytes("crc", 20_000)
# The polynomials as their standards print them: the highest bit first, without the highest term.
POLYNOMIALS: dict[ChecksumAlgorithm, int] = {
    "crc64nvme": 0xAD93D23594C93659,  # NVM Express Base Specification 2.0, 5.2.1.3.4
    "crc32c": 0x1EDC6F41,  # RFC 3720, 12.1
    "crc32": 0x04C11DB7,  # RFC 1952, 8
}
# Of the ASCII digits "123456789": "check" in the catalogue of parametrised CRC algorithms.
CHECKS: dict[ChecksumAlgorithm, int] = {"crc64nvme": 0xAE8B14860A799888, "crc32c": 0xE3069283, "crc32": 0xCBF43926}
ALGORITHMS = tuple(WIDTHS)


@pytest.fixture(autouse=True)
def the_extension_is_here() -> None:
    if not crc.available():
        missing("CRC extension", "install gcc and python3-dev, remove .venv and run make setup")


@pytest.fixture(params=[0, 1, 2], ids=["table", "products", "four products"])
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """The instructions of one level. A missing level falls back to a lower one."""
    _crc.use_level(request.param)
    yield
    _crc.use_level(2)


def mirrored(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2)


def prefixes(algorithm: ChecksumAlgorithm, data: bytes, value: int = 0) -> Iterator[int]:
    """The CRC of each prefix of `data` after `value`, bit by bit."""
    bits = 8 * WIDTHS[algorithm]
    polynomial, ones = mirrored(POLYNOMIALS[algorithm], bits), (1 << bits) - 1
    state = value ^ ones
    yield state ^ ones
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (polynomial if state & 1 else 0)
        yield state ^ ones


@functools.cache
def reference(algorithm: ChecksumAlgorithm) -> list[int]:
    """The CRC of each prefix of CONTENT."""
    return list(prefixes(algorithm, CONTENT))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestEachWay:
    def test_the_published_check_value(self, algorithm: ChecksumAlgorithm) -> None:
        assert updated(algorithm, 0, b"123456789") == CHECKS[algorithm]

    def test_every_length_to_several_blocks(self, algorithm: ChecksumAlgorithm) -> None:
        lengths = [*range(1101), *range(2040, 2060), *range(4090, 4110), len(CONTENT)]
        assert [updated(algorithm, 0, CONTENT[:length]) for length in lengths] == [
            reference(algorithm)[length] for length in lengths
        ]

    def test_every_alignment(self, algorithm: ChecksumAlgorithm) -> None:
        for start in range(65):
            value = reference(algorithm)[start]
            for stop in (start + 300, start + 1100, start + 3000):
                assert updated(algorithm, value, memoryview(CONTENT)[start:stop]) == reference(algorithm)[stop]

    def test_any_split(self, algorithm: ChecksumAlgorithm) -> None:
        @settings(max_examples=100, deadline=None)
        @given(st.lists(st.integers(0, len(CONTENT)), max_size=8))
        def agrees(cuts: list[int]) -> None:
            value = 0
            for start, stop in pairwise([0, *sorted(cuts), len(CONTENT)]):
                value = updated(algorithm, value, CONTENT[start:stop])
            assert value == reference(algorithm)[-1]

        agrees()


@pytest.mark.usefixtures("way")
def test_crc32_is_that_of_zlib() -> None:
    assert all(updated("crc32", 0, CONTENT[:length]) == zlib.crc32(CONTENT[:length]) for length in range(0, len(CONTENT), 7))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
class TestCombining:
    def test_any_two_contents(self, algorithm: ChecksumAlgorithm) -> None:
        @settings(max_examples=200, deadline=None)
        @given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)))
        def agrees(one: int, other: int) -> None:
            start, stop = sorted((one, other))
            second = updated(algorithm, 0, CONTENT[start:stop])
            assert combined(algorithm, reference(algorithm)[start], second, stop - start) == reference(algorithm)[stop]

        agrees()

    def test_contents_of_terabytes(self, algorithm: ChecksumAlgorithm) -> None:
        """Zeros: a content of twice the length is made of two equal ones."""
        value, length = updated(algorithm, 0, bytes(1000)), 1000
        for _ in range(40):
            before, value = value, combined(algorithm, value, value, length)
            length *= 2
            halves = combined(algorithm, combined(algorithm, before, 0, 0), before, length // 2)
            assert halves == value
        parts = combined(algorithm, updated(algorithm, 0, bytes(24)), value, length)
        assert parts == combined(algorithm, value, updated(algorithm, 0, bytes(24)), 24)


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="not a CRC: crc16"):
        _crc.update("crc16", 0, b"")
    with pytest.raises(ValueError, match="not a CRC: md5"):
        _crc.combine("md5", 0, 0, 0)


def test_several_threads_at_once() -> None:
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda _: updated("crc64nvme", 0, CONTENT), range(200)))
    assert set(values) == {reference("crc64nvme")[-1]}
