"""The examples of README and docs are valid: their commands exist, and their Python runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import fetcher.cli.parser
import loader.cli.parser
from fetcher.artifact import ArtifactRef
from tests.docs.pages import PAGES, REPOSITORY, blocks

PARSERS = {"fetcher": fetcher.cli.parser.build_parser, "loader": loader.cli.parser.build_parser}


def commands() -> Iterator[str]:
    """Yield the commands after a prompt."""
    for page in PAGES:
        for block in blocks(page.read_text(), "console"):
            yield from re.findall(r"^\$ ((?:fetcher|loader) .*)$", block, re.MULTILINE)


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_exists(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    assert PARSERS[program]().parse_args(words).command == words[0]


def snippets() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page.read_text(), "python"):
            yield page.relative_to(REPOSITORY).as_posix(), block


@pytest.mark.parametrize(("page", "snippet"), list(snippets()))
def test_python_code_compiles(page: str, snippet: str) -> None:
    compile(snippet, page, "exec")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("page", "snippet"), [each for each in snippets() if "fetcher.fetch(" in each[1]])
def test_python_code_fetches_and_loads(page: str, snippet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet.replace('"/models"', repr(str(tmp_path))), page, "exec"), {})  # noqa: S102 - our own text
    first, *tensors = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / ArtifactRef('hf://org/model', None, ('*.safetensors', '*.json')).key} ")
    assert [line.split()[0] for line in tensors] == ["norm.weight"]


@pytest.mark.parametrize("key", ["759d2c8a9177d6ad", "5df9d7cea3b612c3"])
def test_the_cache_keys_of_the_examples_are_correct(key: str) -> None:
    assert key in {ArtifactRef("hf://org/model").key, ArtifactRef("hf://org/m").key}
