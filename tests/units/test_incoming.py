"""One file of a transfer: bytes in any order and any pieces become chunks, journal records and a digest."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, ORIGIN, ByteRange, Digest, RemoteFile
from fetcher.engine.incoming import PART_SIZE, STRETCH, Cursor, Incoming
from fetcher.engine.states import Change
from fetcher.integrity.frontier import Stretch, advance_together
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, JournalledChunk, JournalledFile, JournalledPart, read_journals
from fetcher.testing.checkpoint import random_bytes

CONTENT = random_bytes("incoming", 2 * CHUNK_SIZE + 777)
FIRST, SECOND, LAST = (ByteRange(start, min(start + CHUNK_SIZE, len(CONTENT))) for start in range(0, len(CONTENT), CHUNK_SIZE))
SHA256 = Digest("sha256", hashlib.sha256(CONTENT).hexdigest())
WHOLE = RemoteFile("model.bin", len(CONTENT), (SHA256,))


def xxh3(part: ByteRange) -> str:
    return xxhash.xxh3_128_hexdigest(CONTENT[part.start : part.stop])


class Staging:
    """The directory of a lease, with one file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._journal = Journal(directory / "journal", mode=0o644, version="1")
        self._staged: list[StagedFile] = []

    def incoming(self, file: RemoteFile = WHOLE, *, in_line: bool = False) -> Incoming:
        self._staged.append(StagedFile.create(file, self.directory / file.path, self._journal))
        return Incoming(self._staged[-1], streams=1, in_line=in_line)

    def close(self) -> None:
        self._journal.close()
        for staged in self._staged:
            staged.close()

    def journalled(self) -> JournalledFile | None:
        return read_journals([self.directory / "journal"]).files.get(WHOLE.path)


@pytest.fixture
def staging(tmp_path: Path) -> Iterator[Staging]:
    staging = Staging(tmp_path)
    yield staging
    staging.close()


def receive(incoming: Incoming, part: ByteRange, *, piece: int = 5_000_011) -> Cursor:
    """Write a part like a connection, in pieces independent of chunks."""
    cursor = incoming.cursor(part.start)
    for start in range(part.start, part.stop, piece):
        incoming.write(cursor, memoryview(CONTENT)[start : min(start + piece, part.stop)])
    return cursor


def written(incoming: Incoming, cursor: Cursor, count: int) -> int:
    """Write like a connection that may hash. Returns the number of hashed bytes."""
    incoming.claim(cursor)
    incoming.write(cursor, memoryview(CONTENT)[cursor.position : cursor.position + count])
    return incoming.release(cursor)


def finish(stretch: Stretch) -> None:
    buffer = memoryview(bytearray(1 << 20))
    while stretch.left:
        advance_together([stretch], buffer)
    stretch.close()
    stretch.frontier.give_back(stretch)


def hash_all(incoming: Incoming) -> None:
    while stretch := incoming.stretch():
        finish(stretch)


class TestWriting:
    @pytest.mark.parametrize("piece", [len(CONTENT), 5_000_011, CHUNK_SIZE])
    def test_pieces_of_any_length_become_chunks_and_the_right_digest(self, staging: Staging, piece: int) -> None:
        incoming = staging.incoming()
        receive(incoming, ByteRange(0, len(CONTENT)), piece=piece)
        hash_all(incoming)
        assert (staging.directory / WHOLE.path).read_bytes() == CONTENT
        assert incoming.staged.chunks == {0: xxh3(FIRST), 1: xxh3(SECOND), 2: xxh3(LAST)}
        assert (incoming.missing(), incoming.lag, incoming.hashed, incoming.mismatch()) == ([], 0, True, None)

    def test_the_order_of_the_parts_does_not_matter(self, staging: Staging) -> None:
        incoming = staging.incoming()
        for part in (LAST, FIRST, SECOND):
            receive(incoming, part)
        hash_all(incoming)
        assert incoming.mismatch() is None

    def test_a_write_returns_the_number_of_finished_chunks(self, staging: Staging) -> None:
        incoming = staging.incoming()
        cursor = incoming.cursor(0)
        assert incoming.write(cursor, memoryview(CONTENT)[: CHUNK_SIZE - 1]) == 0
        assert incoming.write(cursor, memoryview(CONTENT)[CHUNK_SIZE - 1 :]) == 3

    def test_finished_and_begun_chunks_are_journalled(self, staging: Staging) -> None:
        receive(staging.incoming(), ByteRange(0, CHUNK_SIZE + PART_SIZE + 5), piece=PART_SIZE)
        journalled = staging.journalled()
        assert journalled is not None
        assert (journalled.identity, journalled.chunks) == (WHOLE.identity, {0: JournalledChunk(xxh3(FIRST), supplier=ORIGIN)})
        assert journalled.parts == {1: JournalledPart(PART_SIZE, xxh3(ByteRange(CHUNK_SIZE, CHUNK_SIZE + PART_SIZE)))}

    def test_a_file_without_an_identity_is_not_journalled(self, staging: Staging) -> None:
        receive(staging.incoming(RemoteFile(WHOLE.path, len(CONTENT))), FIRST)
        assert staging.journalled() is None


class TestMissing:
    def test_missing_neighbours_are_joined(self, staging: Staging) -> None:
        incoming = staging.incoming()
        assert incoming.missing() == [ByteRange(0, len(CONTENT))]
        receive(incoming, SECOND)
        assert incoming.missing() == [FIRST, LAST]

    def test_a_file_without_ranges_or_size_is_fetched_as_a_whole(self, staging: Staging) -> None:
        assert staging.incoming(RemoteFile("a", len(CONTENT), (SHA256,), ranges=False)).missing() == [None]
        assert staging.incoming(RemoteFile("b", None, (SHA256,))).missing() == [None]

    def test_an_empty_file_has_no_missing_range(self, staging: Staging) -> None:
        incoming = staging.incoming(RemoteFile("a", 0, (Digest("sha256", hashlib.sha256().hexdigest()),)))
        assert (incoming.missing(), incoming.hashed, incoming.mismatch()) == ([], True, None)

    def test_an_unknown_size_is_known_at_the_end(self, staging: Staging) -> None:
        incoming = staging.incoming(RemoteFile("a", None, (SHA256,)))
        incoming.end_unsized(receive(incoming, ByteRange(0, len(CONTENT))))
        hash_all(incoming)
        assert (incoming.size, incoming.missing(), incoming.mismatch()) == (len(CONTENT), [], None)
        assert incoming.staged.chunks[2] == xxh3(LAST)


class TestParking:
    def test_another_connection_continues_in_the_middle_of_a_chunk(self, staging: Staging) -> None:
        incoming = staging.incoming()
        incoming.park(receive(incoming, ByteRange(0, 1000)))
        assert incoming.missing() == [ByteRange(1000, len(CONTENT))]
        receive(incoming, ByteRange(1000, CHUNK_SIZE))
        assert incoming.staged.chunks == {0: xxh3(FIRST)}

    def test_a_parked_chunk_is_journalled(self, staging: Staging) -> None:
        incoming = staging.incoming()
        incoming.park(receive(incoming, ByteRange(0, 1000)))
        journalled = staging.journalled()
        assert journalled is not None
        assert journalled.parts == {0: JournalledPart(1000, xxh3(ByteRange(0, 1000)))}

    def test_a_connection_that_restarts_a_chunk_gets_a_fresh_cursor(self, staging: Staging) -> None:
        incoming = staging.incoming()
        incoming.park(receive(incoming, ByteRange(0, 1000)))
        receive(incoming, FIRST)
        assert incoming.staged.chunks == {0: xxh3(FIRST)}

    @pytest.mark.parametrize("begun", [[SECOND], [FIRST, LAST], [FIRST, SECOND, LAST]])
    def test_every_begun_chunk_is_resumed(self, staging: Staging, begun: list[ByteRange]) -> None:
        """Many connections begin many chunks, and an interruption must not lose them."""
        incoming = staging.incoming()
        for part in begun:
            incoming.park(receive(incoming, ByteRange(part.start, part.start + 700)))
        missing = incoming.missing()
        assert sum(len(each) for each in missing if each) == len(CONTENT) - 700 * len(begun)
        for each in missing:
            assert each is not None
            receive(incoming, each)
        hash_all(incoming)
        assert incoming.staged.complete
        assert incoming.mismatch() is None

    @pytest.mark.parametrize("part", [FIRST, LAST], ids=["a chunk", "the file"])
    def test_a_cursor_at_the_end_of_a_chunk_or_file_is_not_kept(self, staging: Staging, part: ByteRange) -> None:
        incoming = staging.incoming()
        before = incoming.cursor(part.start)
        incoming.write(before, memoryview(CONTENT)[part.start : part.stop])
        incoming.park(before)
        journalled = staging.journalled()
        assert journalled is not None
        assert journalled.parts == {}
        assert incoming.cursor(part.stop) is not before


class TestFrontier:
    def test_the_frontier_follows_the_contiguous_prefix(self, staging: Staging) -> None:
        incoming = staging.incoming()
        receive(incoming, SECOND)
        assert (incoming.contiguous(), incoming.stretch(), incoming.lag, incoming.ready) == (0, None, CHUNK_SIZE, 0)
        receive(incoming, FIRST)
        assert (incoming.contiguous(), incoming.ready) == (2 * CHUNK_SIZE, 2 * CHUNK_SIZE)
        hash_all(incoming)
        assert (incoming.lag, incoming.hashed) == (0, False)
        receive(incoming, LAST)
        assert incoming.contiguous() == len(CONTENT)

    def test_a_stretch_is_bounded(self, staging: Staging) -> None:
        incoming = staging.incoming(RemoteFile("a", 2 * STRETCH, (SHA256,)))
        for index in range(2 * STRETCH // CHUNK_SIZE):
            incoming.staged.finish_chunk(index, JournalledChunk("0" * 32))
        stretch = incoming.stretch()
        assert stretch is not None
        assert stretch.left == STRETCH

    def test_a_file_without_a_digest_has_no_frontier(self, staging: Staging) -> None:
        incoming = staging.incoming(RemoteFile("a", len(CONTENT)))
        receive(incoming, FIRST)
        assert (incoming.stretch(), incoming.lag, incoming.hashed, incoming.mismatch()) == (None, 0, True, None)


STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9_000_000), st.booleans(), st.booleans()), max_size=12)
"""Which of three connections writes next and how much, whether it is dropped after that, and whether the follower begins."""


class TestInLine:
    def test_the_connection_that_is_next_hashes(self, staging: Staging) -> None:
        incoming = staging.incoming(in_line=True)
        first, second = incoming.cursor(0), incoming.cursor(SECOND.start)
        assert written(incoming, second, 1000) == 0
        assert written(incoming, first, CHUNK_SIZE) == CHUNK_SIZE
        assert written(incoming, second, 1000) == 2000  # with what it wrote before
        assert incoming.stretch() is None

    def test_its_writers_yield_to_no_follower(self, staging: Staging) -> None:
        small = RemoteFile(WHOLE.path, 1000, WHOLE.digests)
        assert staging.incoming().is_followed
        assert not staging.incoming(in_line=True).is_followed
        assert not staging.incoming(small).is_followed, "it comes in one piece"
        assert not staging.incoming(RemoteFile(WHOLE.path, WHOLE.size)).is_followed, "it has no digest"

    def test_one_holds_the_frontier(self, staging: Staging) -> None:
        incoming = staging.incoming(in_line=True)
        receive(incoming, FIRST)
        stretch = incoming.stretch()
        assert stretch is not None
        assert (incoming.stretch(), written(incoming, incoming.cursor(SECOND.start), 1000)) == (None, 0)

    def test_a_file_that_comes_in_one_piece_is_hashed_with_it(self, staging: Staging) -> None:
        digest = Digest("sha256", hashlib.sha256(CONTENT[:1000]).hexdigest())
        incoming = staging.incoming(RemoteFile(WHOLE.path, 1000, (digest,)))
        assert written(incoming, incoming.cursor(0), 1000) == 1000
        assert (incoming.hashed, incoming.mismatch()) == (True, None)

    def test_a_state_is_recorded_at_borders_only(self, staging: Staging) -> None:
        incoming = staging.incoming(in_line=True)
        written(incoming, incoming.cursor(0), CHUNK_SIZE + 5)
        assert incoming.staged.state[0] == CHUNK_SIZE

    def test_bytes_behind_the_frontier_are_written_again_only_after_a_rewind(self, staging: Staging) -> None:
        incoming = staging.incoming(in_line=True)
        written(incoming, incoming.cursor(0), CHUNK_SIZE + 1000)
        again = incoming.cursor(SECOND.start)
        assert incoming.frontier is not None
        assert incoming.frontier.position == CHUNK_SIZE
        assert written(incoming, again, len(CONTENT) - CHUNK_SIZE) == len(CONTENT) - CHUNK_SIZE
        assert incoming.mismatch() is None

    def test_damage_after_receipt_is_found_by_the_digests_of_chunks_only(self, staging: Staging) -> None:
        incoming = staging.incoming(in_line=True)
        written(incoming, incoming.cursor(0), len(CONTENT))
        with incoming.staged.opened() as descriptor:
            os.pwrite(descriptor, bytes([CONTENT[SECOND.start + 5] ^ 1]), SECOND.start + 5)
        assert (incoming.mismatch(), incoming.damaged_chunks()) == (None, [1])

    @settings(max_examples=15, deadline=None)
    @given(STEPS)
    def test_any_interleaving_gives_the_digest_of_the_file(self, steps: list[tuple[int, int, bool, bool]]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            staging = Staging(Path(directory))
            incoming = staging.incoming(in_line=True)
            parts = [FIRST, SECOND, LAST]
            cursors = [incoming.cursor(part.start) for part in parts]
            for number, count, dropped, follows in steps:
                stretch = incoming.stretch() if follows else None
                left = parts[number].stop - cursors[number].position
                hashed = written(incoming, cursors[number], min(count, left)) if left else 0
                assert stretch is None or hashed == 0
                if dropped and left > count:
                    incoming.park(cursors[number])
                    cursors[number] = incoming.cursor(cursors[number].position)
                if stretch is not None:
                    finish(stretch)
            for part, cursor in zip(parts, cursors, strict=True):
                if part.stop > cursor.position:
                    written(incoming, cursor, part.stop - cursor.position)
            hash_all(incoming)
            assert (incoming.hashed, incoming.mismatch()) == (True, None)
            staging.close()


class TestWrongContent:
    def test_a_chunk_that_the_disk_changed_is_fetched_again(self, staging: Staging) -> None:
        incoming = staging.incoming()
        receive(incoming, ByteRange(0, len(CONTENT)))
        with incoming.staged.opened() as descriptor:
            os.pwrite(descriptor, bytes([CONTENT[SECOND.start + 5] ^ 1]), SECOND.start + 5)
        hash_all(incoming)
        assert incoming.mismatch() is not None
        assert incoming.damaged_chunks() == [1]
        assert incoming.forget([1]) == CHUNK_SIZE
        assert (incoming.missing(), incoming.contiguous()) == ([SECOND], CHUNK_SIZE)
        receive(incoming, SECOND)
        hash_all(incoming)
        assert incoming.mismatch() is None

    def test_a_restarted_file_keeps_no_inode_chunk_or_record(self, staging: Staging) -> None:
        incoming = staging.incoming()
        receive(incoming, SECOND)
        incoming.park(receive(incoming, ByteRange(0, 1000)))
        former = (staging.directory / WHOLE.path).open("rb")
        incoming.change(Change.RESTART)
        assert incoming.restart() == CHUNK_SIZE
        assert os.fstat(former.fileno()).st_ino != os.stat(incoming.staged.path).st_ino
        former.close()
        journalled = staging.journalled()
        assert journalled is not None
        assert (journalled.chunks, journalled.parts, journalled.state) == ({}, {}, (0, b""))
        assert incoming.missing() == [ByteRange(0, len(CONTENT))]
        receive(incoming, ByteRange(0, len(CONTENT)))
        hash_all(incoming)
        assert incoming.mismatch() is None
