"""All error messages are listed in messages.txt, so that somebody reads them as a whole."""

from __future__ import annotations

import re

import pytest

from tests.messages.__main__ import LISTED, error_names, messages


def test_the_list_is_up_to_date() -> None:
    assert messages() == LISTED.read_text().splitlines(), "run python -m tests.messages"


def test_the_list_has_messages_of_most_errors() -> None:
    assert len(error_names()) > 30
    assert len({line.split()[0] for line in messages()}) > 25


@pytest.mark.parametrize("word", ["mend", "whoever", "let off", "found out", "so many", "please", "oops"])
def test_no_message_needs_to_be_read_twice(word: str) -> None:
    assert not [line for line in messages() if re.search(rf"\b{word}\b", line, re.IGNORECASE)]


def test_no_message_ends_with_a_full_stop_or_an_exclamation_mark() -> None:
    assert not [line for line in messages() if line.endswith((".", "!")) and not line.endswith("..")]
