"""Checksums of files whose chunks arrive in any order, in any pieces, with parts that end anywhere."""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import Checksum, ChecksumAlgorithm, RemoteFile
from fetcher.integrity import checksums, crc
from fetcher.integrity.checksums import CrcCheck, checkable, in_order
from fetcher.integrity.digests import DigestCheck
from fetcher.integrity.md5 import new_md5
from fetcher.planning.borders import Borders
from fetcher.testing.checkpoint import random_bytes
from tests.lab.checksums import published, require_crcs

CONTENT = random_bytes("checksums", 3000)
CHUNK = 500
"""Bytes of a chunk here: `CrcCheck` does not know how long chunks are."""
SEEDS = st.integers(0, 2**32)
PARTS = st.lists(st.integers(1, 900), min_size=1, max_size=12)
CRCS: tuple[ChecksumAlgorithm, ...] = ("crc64nvme", "crc32c", "crc32")


@pytest.fixture(autouse=True)
def the_extension_is_here() -> None:
    require_crcs()


def fitted(parts: Sequence[int], size: int) -> list[int]:
    """`parts`, shortened or completed to `size` bytes."""
    ends = sorted({min(end, size) for end in accumulate(parts)} | {size})
    return [stop - start for start, stop in pairwise([0, *ends]) if stop > start]


def file_of(data: bytes, *expected: Checksum) -> RemoteFile:
    return RemoteFile("model.bin", len(data), checksums=expected)


def fed(check: CrcCheck, data: bytes, index: int, chance: random.Random) -> None:
    """Feed chunk `index` in random pieces."""
    hasher, chunk = check.new_hasher(index * CHUNK), data[index * CHUNK : (index + 1) * CHUNK]
    digest = xxhash.xxh3_128_hexdigest(chunk)
    while chunk:
        length = chance.randint(1, len(chunk))
        hasher.update(chunk[:length])
        chunk = chunk[length:]
    assert hasher.hexdigest() == digest
    check.add(index, hasher)


def chunks_of(data: bytes) -> list[int]:
    return list(range(-(-len(data) // CHUNK)))


class TestCrcs:
    @settings(max_examples=120, deadline=None)
    @given(st.sampled_from(CRCS), st.integers(0, len(CONTENT)), st.none() | PARTS, SEEDS)
    def test_any_order_any_pieces_and_any_parts(
        self, algorithm: ChecksumAlgorithm, size: int, parts: list[int] | None, seed: int
    ) -> None:
        chance = random.Random(seed)
        data = CONTENT[:size]
        expected = published(algorithm, data, () if parts is None else fitted(parts, size))
        check, indexes = CrcCheck(file_of(data, expected)), chunks_of(data)
        chance.shuffle(indexes)
        for index in indexes:
            fed(check, data, index, chance)
        assert check.mismatch() is None

    @settings(max_examples=60, deadline=None)
    @given(PARTS, PARTS, SEEDS)
    def test_several_checksums_with_parts_of_their_own(self, parts: list[int], others: list[int], seed: int) -> None:
        chance = random.Random(seed)
        size = len(CONTENT)
        expected = (
            published("crc64nvme", CONTENT),
            published("crc32", CONTENT, fitted(parts, size)),
            published("crc32c", CONTENT, fitted(others, size)),
        )
        check = CrcCheck(file_of(CONTENT, *expected))
        for index in chunks_of(CONTENT):
            fed(check, CONTENT, index, chance)
        assert check.mismatch() is None

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(CRCS), st.none() | PARTS, st.integers(0, 8 * len(CONTENT) - 1), SEEDS)
    def test_a_flipped_bit_is_found_and_a_chunk_that_comes_again_counts_anew(
        self, algorithm: ChecksumAlgorithm, parts: list[int] | None, bit: int, seed: int
    ) -> None:
        chance = random.Random(seed)
        expected = published(algorithm, CONTENT, fitted(parts, len(CONTENT)) if parts else ())
        damaged = bytearray(CONTENT)
        damaged[bit // 8] ^= 1 << bit % 8
        check = CrcCheck(file_of(CONTENT, expected))
        for index in chunks_of(CONTENT):
            fed(check, bytes(damaged), index, chance)
        assert check.mismatch() == (expected, str(published(algorithm, bytes(damaged), expected.parts)))
        bad = bit // 8 // CHUNK
        check.drop(bad)
        assert check.missing(chunks_of(CONTENT)) == [bad]
        fed(check, CONTENT, bad, chance)
        assert check.mismatch() is None

    def test_crc32_is_that_of_zlib(self) -> None:
        check = CrcCheck(file_of(CONTENT, Checksum("crc32", f"{zlib.crc32(CONTENT):08x}")))
        for index in chunks_of(CONTENT):
            fed(check, CONTENT, index, random.Random(index))
        assert check.mismatch() is None

    def test_an_empty_file(self) -> None:
        assert CrcCheck(file_of(b"", published("crc64nvme", b""))).mismatch() is None
        assert CrcCheck(file_of(b"", Checksum("crc32c", "00000001"))).mismatch() is not None

    def test_missing_chunks_are_a_mismatch(self) -> None:
        check = CrcCheck(file_of(CONTENT, published("crc32", CONTENT, (1000, 2000))))
        fed(check, CONTENT, 0, random.Random(1))
        assert check.mismatch() is not None
        check.clear()
        assert check.missing(chunks_of(CONTENT)) == chunks_of(CONTENT)

    def test_a_file_without_a_crc_costs_nothing(self) -> None:
        check = CrcCheck(file_of(CONTENT, published("md5", CONTENT)))
        hasher = check.new_hasher(0)
        assert not isinstance(hasher, checksums.ChunkHasher)
        check.add(0, hasher)
        assert (check.missing([0, 1]), check.mismatch()) == ([], None)


class TestMd5:
    @settings(max_examples=60, deadline=None)
    @given(PARTS, st.lists(st.integers(0, len(CONTENT)), max_size=8))
    def test_an_etag_of_parts(self, parts: list[int], cuts: list[int]) -> None:
        expected = published("md5", CONTENT, fitted(parts, len(CONTENT)))
        hasher = new_md5(expected.parts)
        for start, stop in pairwise([0, *sorted(cuts), len(CONTENT)]):
            hasher.update(CONTENT[start:stop])
        assert hasher.hexdigest() == expected.hex

    def test_an_etag_as_a_store_computes_it(self) -> None:
        """Two parts: of 5 MiB and of 1 byte, all zeros."""
        parts = (5 * 1024 * 1024, 1)
        hasher = new_md5(parts)
        hasher.update(bytes(sum(parts)))
        of_parts = bytes.fromhex("5f363e0e58a95f06cbe9bbc662c5dfb6" + "93b885adfe0da089cdf634904fd59f71")
        assert hasher.hexdigest() == hashlib.md5(of_parts, usedforsecurity=False).hexdigest()

    @pytest.mark.parametrize("parts", [(), (1, 1999, 1000)])
    def test_it_is_compared_with_the_digests_of_the_file(self, parts: tuple[int, ...]) -> None:
        expected = published("md5", CONTENT, parts)
        check = DigestCheck((), size=len(CONTENT), checksums=[expected])
        check.update(CONTENT)
        assert check.mismatch() is None
        check = DigestCheck((), size=len(CONTENT), checksums=[expected])
        check.update(bytes(CONTENT[::-1]))
        assert check.mismatch() == (expected, str(published("md5", bytes(CONTENT[::-1]), parts)))


class TestCheckable:
    def test_parts_that_do_not_make_the_file_cannot_be_checked(self) -> None:
        whole, right = published("crc32", CONTENT), published("crc32", CONTENT, (1000, 2000))
        wrong = [Checksum("crc32", "0" * 8, parts) for parts in [(1000, 1999), (0, 3000), (-1, 3001)]]
        assert checkable(file_of(CONTENT, whole, right, *wrong)) == (whole, right)

    def test_only_md5_needs_the_bytes_in_order(self) -> None:
        expected = published("md5", CONTENT), published("crc32c", CONTENT)
        assert in_order(file_of(CONTENT, *expected)) == expected[:1]

    def test_without_the_extension_only_md5_is_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(crc, "_crc", None)
        expected = published("md5", CONTENT), Checksum("crc32c", "0" * 8)
        assert checkable(file_of(CONTENT, *expected)) == expected[:1]
        assert CrcCheck(file_of(CONTENT, *expected)).mismatch() is None


class TestBorders:
    @settings(max_examples=100)
    @given(st.lists(PARTS, max_size=3), st.integers(0, 2000), st.integers(0, 2000))
    def test_pieces_end_at_borders_and_nowhere_else(self, uploads: list[list[int]], position: int, length: int) -> None:
        borders, data = Borders(uploads), random_bytes("borders", length)
        pieces = [bytes(piece) for piece in borders.cut(memoryview(data), position)]
        assert b"".join(pieces) == data
        assert all(pieces)
        ends = list(accumulate(map(len, pieces), initial=position))[1:-1]
        assert ends == sorted({end for parts in uploads for end in accumulate(parts) if position < end < position + length})
