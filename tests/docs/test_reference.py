"""The generated pages are current, and every option and variable is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fetcher.cli.parser
import loader.cli.parser
from docs.generator import DOCS, PAGES
from docs.generator.exits import words
from docs.generator.tables import NOTICE
from fetcher.errors import Unauthorized
from fetcher.transport.statuses import Refusal, error_for
from tests.docs.pages import REPOSITORY

OPTIONS = {
    option.variable: option
    for commands in (fetcher.cli.parser.COMMANDS, loader.cli.parser.COMMANDS)
    for _, options in commands.values()
    for option in options
}
VARIABLE = re.compile(
    "(CA|CURL|FETCHER|HF|HUGGING|HUGGINGFACE|LOADER|MODEL|REQUESTS|SSL|STORAGE|TRANSFORMERS|XDG)(_[A-Z0-9]+)+"
)
"""The prefixes of variables that we read. Without them, other constants in upper case would match."""


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_current(name: str) -> None:
    """`make docs` writes the pages."""
    assert (DOCS / name).read_text() == PAGES[name]()


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_says_that_it_is_generated(name: str) -> None:
    assert NOTICE in PAGES[name]()


def variables_in_the_code() -> Iterator[str]:
    for package in ("fetcher", "loader"):
        for path in (REPOSITORY / package).rglob("*.py"):
            if "testing" not in path.parts:
                yield from _names(path)


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
            yield node.value


def test_every_variable_that_the_code_reads_is_documented() -> None:
    page = (DOCS / "environment.md").read_text()
    variables = set(variables_in_the_code()) | set(OPTIONS)
    assert len(variables) > len(OPTIONS)
    assert {name for name in variables if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("variable", OPTIONS)
def test_every_option_is_documented(variable: str) -> None:
    option = OPTIONS[variable]
    page = (DOCS / ("cli.md" if option.program == "fetcher" else "loader.md")).read_text()
    assert f"| `{option.flag}" in page
    assert f"`{variable}`" in page


class TestTroubleshooting:
    def sections(self) -> dict[str, str]:
        """Return the text of each section by its heading."""
        parts = re.split(r"^### (.+)$", (DOCS / "errors.md").read_text(), flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))

    def test_exactly_the_reason_words_have_sections(self) -> None:
        assert set(self.sections()) == set(words()) - {"Completed"}

    @pytest.mark.parametrize("word", sorted(set(words()) - {"Completed"}))
    def test_a_section_has_the_exit_code_and_what_to_check_first(self, word: str) -> None:
        code, again = words()[word]
        section = self.sections()[word].strip()
        assert section.startswith(f"Exit code {code}{', final' if again == 'no' else ''}. ")
        assert "\n1. " in section

    def test_a_section_says_whether_a_later_run_can_succeed(self) -> None:
        promised = {word for word, text in self.sections().items() if "A later run may" in text or "continues" in text}
        assert promised == {word for word, (_, again) in words().items() if again == "yes"} - {"Completed"}


class TestStatuses:
    """The table of HTTP statuses. A row lists statuses, or a range with exceptions."""

    def documented(self) -> dict[int, tuple[str, str]]:
        """Return the reason word of each status and whether to run again. A listed status overrides a range."""
        table = (DOCS / "errors.md").read_text().partition("## What an HTTP status means")[2]
        rows = re.findall(r"^\| (.*\d.*) \| `(\w+)`.* \| (yes|no) \|$", table, re.MULTILINE)
        (others,) = [(word, again) for named, word, again in rows if "any other" in named]
        (above,) = [(word, again) for named, word, again in rows if "500 and above" in named]
        found = {status: above if status >= 500 else others for status in range(400, 600)}
        for named, word, again in rows:
            # The exceptions of `500 and above, except 501` have their own rows.
            plain = re.sub("500 and above.*|and any other.*", "", named)
            found |= {int(status): (word, again) for status in re.findall(r"\d{3}", plain)}
        return found

    def test_each_status_has_the_documented_meaning(self) -> None:
        errors = {status: error_for(Refusal(status, {}), what="a file") for status in range(400, 600)}
        assert self.documented() == {
            status: (error.reason, "yes" if error.retryable else "no") for status, error in errors.items()
        }
        assert isinstance(errors[401], Unauthorized)
