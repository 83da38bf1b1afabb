"""The journal under damage: a record is read exactly as it was written, or ignored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import NewerFormat
from fetcher.store.journal import Journal, JournalledChunk, JournalledFile, JournalledPart, read_journals

CHUNKS = {index: JournalledChunk(f"{index:032x}") for index in range(6)}
PARTS = {0: JournalledPart(4096, "aa" * 16), 9: JournalledPart(8192, "bb" * 16)}
PATHS = ("model-00001.safetensors", "nested/größe\n.bin")


def written(path: Path) -> bytes:
    """The bytes of a journal with records of two files."""
    journal = Journal(path, mode=0o644, version="1")
    for name in PATHS:
        journal.begin(name, f"identity of {name}")
        journal.part(name, 0, PARTS[0])
        for index, chunk in CHUNKS.items():
            journal.chunk(name, index, chunk)
        journal.part(name, 9, PARTS[9])
    journal.close()
    return path.read_bytes()


with TemporaryDirectory() as _directory:
    WHOLE = written(Path(_directory) / "journal")


def read(*journals: bytes) -> dict[str, JournalledFile]:
    with TemporaryDirectory() as directory:
        paths = [Path(directory) / str(number) for number in range(len(journals))]
        for path, content in zip(paths, journals, strict=True):
            path.write_bytes(content)
        return read_journals([*paths, Path(directory) / "missing"]).files


def assert_nothing_wrong(files: dict[str, JournalledFile]) -> None:
    """`files` is a subset of what was written."""
    for path, file in files.items():
        assert path in PATHS
        assert file.identity == f"identity of {path}"
        assert all(CHUNKS[index] == chunk for index, chunk in file.chunks.items())
        assert all(PARTS[index] == part for index, part in file.parts.items())


def test_records_are_read_as_they_were_written() -> None:
    files = read(WHOLE)
    assert list(files) == list(PATHS)
    for file in files.values():
        assert file.chunks == CHUNKS
        assert file.parts == {9: PARTS[9]}


@given(st.integers(0, len(WHOLE)))
def test_a_torn_tail_loses_only_its_own_record(length: int) -> None:
    files = read(WHOLE[:length])
    assert_nothing_wrong(files)
    records = sum(len(file.chunks) for file in files.values())
    assert records == WHOLE[:length].count(b'["chunk"') - _torn(length)


def _torn(length: int) -> int:
    """1 if the cut is inside a chunk's record, after its name."""
    tail = WHOLE[:length].rpartition(b"\n")[2]
    return int(b'["chunk"' in tail and WHOLE[length : length + 1] != b"\n")


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_makes_a_wrong_record(position: int, mask: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] ^= mask
    assert_nothing_wrong(read(bytes(damaged)))


@given(st.binary(max_size=200))
def test_garbage_is_ignored(garbage: bytes) -> None:
    assert_nothing_wrong(read(garbage, WHOLE[:0]))


@given(st.integers(0, len(WHOLE)))
def test_the_torn_tail_of_a_journal_does_not_affect_the_next_journal(length: int) -> None:
    assert read(WHOLE[:length], WHOLE) == read(WHOLE)


def test_a_new_identity_voids_earlier_chunks(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644, version="1")
    journal.begin("file", "old")
    journal.chunk("file", 0, CHUNKS[0])
    journal.begin("file", "new")
    journal.close()
    assert read_journals([tmp_path / "journal"]).files == {"file": JournalledFile("new")}


def test_a_dropped_file_and_its_later_chunks_are_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644, version="1")
    journal.begin("file", "identity")
    journal.chunk("file", 0, CHUNKS[0])
    journal.drop("file")
    journal.chunk("file", 1, CHUNKS[1])
    journal.close()
    assert not read_journals([tmp_path / "journal"]).files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, mode=0o644, version="1")
    yield journal
    journal.close()


def test_the_latest_state_is_read(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    for position, state in ((16, b"early"), (32, b"\0late\xff"), (32, b"\0later\xff")):
        journal.state("file", position, state)
    assert read_journals([path]).files == {"file": JournalledFile("identity", state=(32, b"\0later\xff"))}


def test_an_empty_state_replaces_an_earlier_one(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.state("file", 16, b"state")
    journal.state("file", 0, b"")
    assert read_journals([path]).files["file"].state == (0, b"")


@pytest.mark.parametrize("again", ["identity", "another"])
def test_a_state_belongs_to_the_identity_it_was_written_for(path: Path, journal: Journal, again: str) -> None:
    journal.begin("file", "identity")
    journal.state("file", 16, b"state")
    journal.begin("file", again)
    assert read_journals([path]).files["file"].state == ((16, b"state") if again == "identity" else (0, b""))


def test_records_of_a_file_that_was_never_begun_are_ignored(path: Path, journal: Journal) -> None:
    journal.state("file", 16, b"state")
    journal.part("file", 0, JournalledPart(5, "00" * 16))
    assert read_journals([path]).files == {}


def test_a_finished_chunk_replaces_its_own_part_only(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.part("file", 0, JournalledPart(5, "00" * 16))
    journal.part("file", 1, JournalledPart(6, "11" * 16))
    journal.chunk("file", 0, JournalledChunk("22" * 16))
    assert read_journals([path]).files == {
        "file": JournalledFile("identity", {0: JournalledChunk("22" * 16)}, {1: JournalledPart(6, "11" * 16)})
    }


def test_close_and_sync_after_close_do_nothing(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.close()
    journal.close()
    journal.sync()
    assert read_journals([path]).files == {"file": JournalledFile("identity")}


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8"), min_size=1) | st.sampled_from(["two\nlines", 'a "quoted" one', "\udcff"]))
def test_any_path_is_read_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path, mode=0o644, version="1")
    journal.begin(name, name)
    journal.close()
    assert read_journals([path]).files == {name: JournalledFile(name)}


class TestGrowth:
    """Lines of a later release, read by this one."""

    def appended(self, path: Path, *records: list[object]) -> None:
        with path.open("ab") as stream:
            for record in records:
                text = json.dumps(record).encode()
                stream.write(b"%s %s\n" % (xxhash.xxh3_64_hexdigest(text).encode(), text))

    def test_unknown_records_and_fields_are_ignored_but_fields_of_a_chunk_are_kept(self, path: Path) -> None:
        self.appended(
            path,
            ["file", "f", {"identity": "i", "etag": "later"}, "more"],
            ["chunk", "f", 0, {"xxh3": "00" * 16, "etag": ["later"], "crc32c": "ab"}],
            ["part", "f", 1, {"length": 5, "xxh3": "11" * 16, "etag": []}],
            ["rumour", "f", 2],
        )
        assert read_journals([path]).files == {
            "f": JournalledFile(
                "i",
                {0: JournalledChunk("00" * 16, {"etag": ["later"], "crc32c": "ab"})},
                {1: JournalledPart(5, "11" * 16, {"etag": []})},
            )
        }

    def test_unknown_fields_of_a_chunk_are_written_again(self, path: Path, journal: Journal) -> None:
        chunk = JournalledChunk("00" * 16, {"etag": ["later"]}, "http://mirror:8650")
        journal.begin("f", "i")
        journal.chunk("f", 0, chunk)
        assert read_journals([path]).files["f"].chunks == {0: chunk}

    def test_a_journal_of_a_later_format_is_refused_and_its_release_is_named(self, path: Path) -> None:
        self.appended(path, ["journal", {"format_version": 2, "version": "7.1"}], ["file", "f", {"identity": "i"}])
        with pytest.raises(NewerFormat, match=rf"{path} was written by weightlift 7\.1 in format 2"):
            read_journals([path])

    def test_the_use_of_a_credential_is_recorded(self, path: Path, journal: Journal) -> None:
        assert not read_journals([path]).authenticated
        journal.authenticated()
        assert read_journals([path]).authenticated

    @pytest.mark.parametrize("record", [[], {}, None, 5, "chunk", ["chunk"], ["chunk", "f", "0", {"xxh3": "a"}],
                                        ["chunk", "f", 0, "a"], ["state", "f", {"length": 1, "sha256": "odd"}]])  # fmt: skip
    def test_a_record_of_another_shape_is_ignored(self, path: Path, record: list[object]) -> None:
        self.appended(path, ["file", "f", {"identity": "i"}], record)
        assert read_journals([path]).files == {"f": JournalledFile("i")}
