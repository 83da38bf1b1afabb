"""The documented reason words and exit codes are exactly those of the errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.generator.exits import descendants
from fetcher import errors
from fetcher.errors import FetchError, LeaseError, SourceError, StoreError, Transient
from loader.errors import LoadError

DOCUMENTED = Path(__file__).parents[2] / "docs" / "exit-codes.md"
ABSTRACT = {FetchError, SourceError, Transient, StoreError, LeaseError, LoadError}
"""Base classes that are never raised."""


RAISED = [error for error in descendants(FetchError) if error not in ABSTRACT]


def documented() -> Iterator[tuple[int, bool, set[str]]]:
    """Return the rows of the table: exit codes below 128, whether a retry can help, and reason words."""
    for code, words, again in re.findall(r"^\| (\d+) \| (.+?) \| (yes|no) \|", DOCUMENTED.read_text(), re.MULTILINE):
        yield int(code), again == "yes", set(re.findall(r"`(\w+)`", words))


def test_the_documented_reason_words_are_those_of_the_errors() -> None:
    found: dict[tuple[int, bool], set[str]] = {}
    for error in RAISED:
        found.setdefault((error.exit_code, error.retryable), set()).add(error.reason)
    # Any error outside this tree is a bug.
    assert {(code, again): words for code, again, words in documented() if code != 70} == found


@pytest.mark.parametrize("error", RAISED)
def test_a_message_begins_with_its_reason_word(error: type[FetchError]) -> None:
    assert error("what happened").sentence() == f"{error.reason}: what happened"
    assert re.fullmatch(r"[A-Z]\w+", error.reason)


def test_the_drawn_error_tree_is_the_real_one() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)\b *(\d+)?", (errors.__doc__ or "").partition("::\n")[2], re.MULTILINE)
    depths = [(len(branches) // 4, name) for branches, name, _ in drawn]
    # Loader and cluster draw their own branches.
    branches = [error for error in descendants(FetchError) if error.__module__ == errors.__name__]
    tree: list[type[FetchError]] = [FetchError, *branches]
    assert depths == [(len(error.__mro__) - len(FetchError.__mro__), error.__name__) for error in tree]
    codes = {name: int(code) for _, name, code in drawn if code}
    assert codes == {error.__name__: error.exit_code for error in RAISED if error in tree}
