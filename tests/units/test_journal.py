"""What a journal says of a digest in the making; everything else of it is in `tests/store/test_journal.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.store.journal import Journal, JournalledFile, read_journals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, mode=0o644)
    yield journal
    journal.close()


def test_the_latest_state_counts(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    for position, state in ((16, b"early"), (32, b"\0late\xff"), (32, b"\0later\xff")):
        journal.state("file", position, state)
    assert read_journals([path]) == {"file": JournalledFile("identity", state=(32, b"\0later\xff"))}


def test_begun_anew_there_is_none(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.state("file", 16, b"state")
    journal.state("file", 0, b"")
    assert read_journals([path])["file"].state == (0, b"")


@pytest.mark.parametrize("again", ["identity", "another"])
def test_it_goes_with_the_content_it_is_of(path: Path, journal: Journal, again: str) -> None:
    journal.begin("file", "identity")
    journal.state("file", 16, b"state")
    journal.begin("file", again)
    assert read_journals([path])["file"].state == ((16, b"state") if again == "identity" else (0, b""))


def test_of_a_file_that_was_never_begun_nothing_is_known(path: Path, journal: Journal) -> None:
    journal.state("file", 16, b"state")
    journal.part("file", 0, 5, "00" * 16)
    assert read_journals([path]) == {}


def test_a_finished_chunk_is_no_part_any_more_but_others_are(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.part("file", 0, 5, "00" * 16)
    journal.part("file", 1, 6, "11" * 16)
    journal.chunk("file", 0, "22" * 16)
    assert read_journals([path]) == {"file": JournalledFile("identity", {0: "22" * 16}, {1: (6, "11" * 16)})}


def test_after_closing_nothing_is_synced_or_closed_twice(path: Path, journal: Journal) -> None:
    journal.begin("file", "identity")
    journal.close()
    journal.close()
    journal.sync()
    assert read_journals([path]) == {"file": JournalledFile("identity")}


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8"), min_size=1) | st.sampled_from(["two\nlines", 'a "quoted" one', "\udcff"]))
def test_any_path_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path, mode=0o644)
    journal.begin(name, name)
    journal.close()
    assert read_journals([path]) == {name: JournalledFile(name)}
