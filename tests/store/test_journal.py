"""The journal under damage: a record is read as it was written, or not at all."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from fetcher.store.journal import Journal, JournalledFile, read_journals

CHUNKS = {index: f"{index:032x}" for index in range(6)}
PATHS = ("model-00001.safetensors", "nested/größe\n.bin")


def written(path: Path) -> bytes:
    """The bytes of a journal that speaks of two files."""
    journal = Journal(path, mode=0o644)
    for name in PATHS:
        journal.begin(name, f"identity of {name}")
        journal.part(name, 0, 4096, "aa" * 16)
        for index, digest in CHUNKS.items():
            journal.chunk(name, index, digest)
        journal.part(name, 9, 8192, "bb" * 16)
    journal.close()
    return path.read_bytes()


with TemporaryDirectory() as _directory:
    WHOLE = written(Path(_directory) / "journal")


def read(*journals: bytes) -> dict[str, JournalledFile]:
    with TemporaryDirectory() as directory:
        paths = [Path(directory) / str(number) for number in range(len(journals))]
        for path, content in zip(paths, journals, strict=True):
            path.write_bytes(content)
        return read_journals([*paths, Path(directory) / "missing"])


def assert_nothing_wrong(files: dict[str, JournalledFile]) -> None:
    """A subset of what was written."""
    for path, file in files.items():
        assert path in PATHS
        assert file.identity == f"identity of {path}"
        assert file.chunks.items() <= CHUNKS.items()
        assert set(file.parts.items()) <= {(0, (4096, "aa" * 16)), (9, (8192, "bb" * 16))}


def test_what_was_written_is_read() -> None:
    files = read(WHOLE)
    assert list(files) == list(PATHS)
    for file in files.values():
        assert file.chunks == CHUNKS
        assert file.parts == {9: (8192, "bb" * 16)}


@given(st.integers(0, len(WHOLE)))
def test_a_torn_tail_costs_its_own_record_only(length: int) -> None:
    files = read(WHOLE[:length])
    assert_nothing_wrong(files)
    records = sum(len(file.chunks) for file in files.values())
    assert records == WHOLE[:length].count(b'["chunk"') - _torn(length)


def _torn(length: int) -> int:
    """1 if the cut goes through a chunk's record behind its name."""
    tail = WHOLE[:length].rpartition(b"\n")[2]
    return int(b'["chunk"' in tail and WHOLE[length : length + 1] != b"\n")


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_makes_a_wrong_record(position: int, mask: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position] ^= mask
    assert_nothing_wrong(read(bytes(damaged)))


@given(st.binary(max_size=200))
def test_garbage_says_nothing(garbage: bytes) -> None:
    assert_nothing_wrong(read(garbage, WHOLE[:0]))


@given(st.integers(0, len(WHOLE)))
def test_a_later_journal_is_not_spoilt_by_the_torn_tail_of_an_earlier_one(length: int) -> None:
    assert read(WHOLE[:length], WHOLE) == read(WHOLE)


def test_another_identity_makes_void_what_was_said_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644)
    journal.begin("file", "old")
    journal.chunk("file", 0, "00" * 16)
    journal.begin("file", "new")
    journal.close()
    assert read_journals([tmp_path / "journal"]) == {"file": JournalledFile("new")}


def test_what_was_dropped_is_void(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644)
    journal.begin("file", "identity")
    journal.chunk("file", 0, "00" * 16)
    journal.drop("file")
    journal.chunk("file", 1, "11" * 16)
    journal.close()
    assert not read_journals([tmp_path / "journal"])
