"""The words and codes that scripts and operators wait for are those that are documented, no more and no fewer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher import errors
from fetcher.errors import FetchError, LeaseError, SourceError, StoreError, Transient
from loader.errors import LoadError

DOCUMENTED = Path(__file__).parents[2] / "docs" / "exit-codes.md"
ABSTRACT = {FetchError, SourceError, Transient, StoreError, LeaseError, LoadError}
"""Never raised themselves."""


def descendants(error: type[FetchError]) -> Iterator[type[FetchError]]:
    """In the order in which they are defined, each before its own."""
    for child in error.__subclasses__():
        yield child
        yield from descendants(child)


RAISED = [error for error in descendants(FetchError) if error not in ABSTRACT]


def documented() -> Iterator[tuple[int, bool, set[str]]]:
    """The table's exit codes below 128, whether the same command may help, and their reason words."""
    for code, words, again in re.findall(r"^\| (\d+) \| (.+?) \| (yes|no) \|", DOCUMENTED.read_text(), re.MULTILINE):
        yield int(code), again == "yes", set(re.findall(r"`(\w+)`", words))


def test_the_documented_words_are_those_of_the_errors() -> None:
    found: dict[tuple[int, bool], set[str]] = {}
    for error in RAISED:
        found.setdefault((error.exit_code, error.retryable), set()).add(error.reason)
    # What no error of this tree is: a bug.
    assert {(code, again): words for code, again, words in documented() if code != 70} == found


@pytest.mark.parametrize("error", RAISED)
def test_a_sentence_begins_with_its_word(error: type[FetchError]) -> None:
    assert error("what happened").sentence() == f"{error.reason}: what happened"
    assert re.fullmatch(r"[A-Z]\w+", error.reason)


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    drawn = re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)\b *(\d+)?", (errors.__doc__ or "").partition("::\n")[2], re.MULTILINE)
    depths = [(len(branches) // 4, name) for branches, name, _ in drawn]
    # The loader draws its own branch.
    branches = [error for error in descendants(FetchError) if error.__module__ == errors.__name__]
    tree: list[type[FetchError]] = [FetchError, *branches]
    assert depths == [(len(error.__mro__) - len(FetchError.__mro__), error.__name__) for error in tree]
    codes = {name: int(code) for _, name, code in drawn if code}
    assert codes == {error.__name__: error.exit_code for error in RAISED if error in tree}
