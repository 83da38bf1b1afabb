"""Files are hashed and read exactly: from any position, in any steps, mapped or not. A short file is an error."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import ByteRange, Digest, RemoteFile
from fetcher.integrity.frontier import LONGER, READ_SIZE, Frontier, Stretch, advance_together, chunk_digest, read_pieces
from fetcher.testing.checkpoint import random_bytes
from tests.lab.descriptors import always

CONTENT = random_bytes("frontier", 4 * READ_SIZE + 4321)
BEGUN = st.binary(min_size=1, max_size=9000).flatmap(lambda content: st.tuples(st.just(content), st.integers(0, len(content))))
"""The content of a file, and the number of hashed bytes."""
PARTS = st.tuples(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT))).map(lambda ends: ByteRange(*sorted(ends)))


@contextmanager
def opened(content: bytes) -> Iterator[int]:
    """A descriptor of a file with `content`."""
    with tempfile.TemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        yield stream.fileno()


@pytest.fixture
def descriptor() -> Iterator[int]:
    with opened(CONTENT) as number:
        yield number


def frontier_of(content: bytes) -> Frontier:
    return Frontier(RemoteFile("file", len(content), (Digest("sha256", hashlib.sha256(content).hexdigest()),)))


@contextmanager
def stretch_of(content: bytes, begin: int) -> Iterator[Stretch]:
    """The rest of a file whose first `begin` bytes are hashed."""
    frontier = frontier_of(content)
    for hasher in frontier.hashers:
        hasher.update(content[:begin])
    frontier.position = begin
    with opened(content) as descriptor:
        stretch = Stretch("file", frontier, always(descriptor), len(content))
        yield stretch
        stretch.close()


class TestStretches:
    @settings(max_examples=30)
    @given(st.lists(BEGUN, min_size=1, max_size=5), st.integers(5, 20_000))
    def test_files_that_advance_together_get_the_right_digests(self, files: list[tuple[bytes, int]], size: int) -> None:
        with ExitStack() as stack:
            stretches = [stack.enter_context(stretch_of(content, begin)) for content, begin in files]
            while moving := [stretch for stretch in stretches if stretch.left]:
                before = [stretch.frontier.position for stretch in moving]
                advance_together(moving, memoryview(bytearray(size)))
                for stretch, position in zip(moving, before, strict=True):
                    assert 0 < stretch.frontier.position - position <= size // len(moving)
            assert [stretch.frontier.mismatch() for stretch in stretches] == [None] * len(files)

    @pytest.mark.parametrize("mapped", [True, False])
    def test_mapped_and_read_bytes_are_equal(self, descriptor: int, mapped: bool) -> None:
        frontier = frontier_of(CONTENT)
        frontier.position = 5000
        stretch = Stretch("file", frontier, always(descriptor), len(CONTENT))
        if not mapped:
            stretch.close()
        buffer = memoryview(bytearray(10_000))
        seen = stretch.next_bytes(buffer)
        # A mapping needs no copy, so no buffer bounds it.
        assert seen == CONTENT[5000 : 5000 + (LONGER if mapped else 1) * 10_000]
        assert (buffer == CONTENT[5000:15_000]) is not mapped
        seen.release()
        stretch.close()

    @pytest.mark.parametrize("mapped", [True, False])
    def test_no_byte_after_the_limit_is_read(self, descriptor: int, mapped: bool) -> None:
        stretch = Stretch("file", frontier_of(CONTENT), always(descriptor), 77)
        if not mapped:
            stretch.close()
        assert stretch.next_bytes(memoryview(bytearray(1000))) == CONTENT[:77]

    def test_a_file_that_ends_before_its_limit_is_an_error(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 50)
        stretch = Stretch("file", frontier_of(CONTENT), always(descriptor), 77)
        buffer = memoryview(bytearray(1000))
        stretch.frontier.position += len(stretch.next_bytes(buffer))
        with pytest.raises(EOFError, match="file ends at byte 50, before byte 77"):
            stretch.next_bytes(buffer)


class TestReading:
    @settings(max_examples=30)
    @given(PARTS)
    def test_pieces_are_the_bytes_of_the_range_in_order(self, part: ByteRange) -> None:
        with opened(CONTENT) as descriptor:
            pieces = [bytes(piece) for piece in read_pieces(descriptor, part)]
        assert b"".join(pieces) == CONTENT[part.start : part.stop]
        assert all(0 < len(piece) <= READ_SIZE for piece in pieces)

    def test_a_short_file_is_an_error_unless_allowed(self, descriptor: int) -> None:
        beyond = ByteRange(len(CONTENT) - 5, len(CONTENT) + 1)
        with pytest.raises(EOFError):
            list(read_pieces(descriptor, beyond))
        assert [bytes(piece) for piece in read_pieces(descriptor, beyond, short_ok=True)] == [CONTENT[-5:]]

    @settings(max_examples=30)
    @given(PARTS)
    def test_the_digest_of_a_chunk_is_its_xxh3(self, part: ByteRange) -> None:
        with opened(CONTENT) as descriptor:
            assert chunk_digest(descriptor, part) == xxhash.xxh3_128_hexdigest(CONTENT[part.start : part.stop])

    def test_an_incomplete_chunk_has_no_digest(self, descriptor: int) -> None:
        assert chunk_digest(descriptor, ByteRange(len(CONTENT) - 5, len(CONTENT) + 1)) is None
