"""Each flag, command, variable and page that a message names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fetcher.cli.parser
import loader.cli.parser

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for package in ("fetcher", "loader")
    for path in (REPOSITORY / package).rglob("*.py")
    if "testing" not in path.parts and path.name != "reference.py"
)
TABLES = {"fetcher": fetcher.cli.parser.COMMANDS, "loader": loader.cli.parser.COMMANDS}
OURS = {option.flag for table in TABLES.values() for _, options in table.values() for option in options}
OTHERS = {"--help", "--version", "--load-format"}
"""Flags of argparse, vLLM and SGLang."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every string of a module except docstrings; an f-string has `{}` in place of its values."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(first.value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(first := node.body[0], ast.Expr)
    }
    inner = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(value.value) if isinstance(value, ast.Constant) else "{}" for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inner:
            yield node.lineno, node.value


def unknown_names(text: str) -> list[str]:
    """Return the flags, commands and pages that `text` names and that do not exist."""
    unknown = [flag for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", text) if flag not in OURS | OTHERS]
    for program, command in re.findall(r"`(fetcher|loader) ([a-z]+)", text):
        if command not in TABLES[program]:
            unknown.append(f"{program} {command}")
    unknown += [page for page in re.findall(r"docs/[a-z-]+\.md", text) if not (REPOSITORY / page).exists()]
    return unknown


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_flag_command_and_page_in_a_message_exists(path: Path) -> None:
    assert [(line, each) for line, text in texts(path) for each in unknown_names(text)] == []


def test_a_flag_named_with_a_command_belongs_to_it() -> None:
    """`loader warm --partial` must be a flag of `loader warm`."""
    for path in SOURCES:
        for line, text in texts(path):
            for program, command, flag in re.findall(r"`(fetcher|loader) ([a-z]+) (--[a-z-]+)", text):
                flags = {option.flag for option in TABLES[program][command][1]} | OTHERS
                assert flag in flags, f"{path}:{line}: {program} {command} has no {flag}"


@pytest.mark.parametrize(
    "text", ["set --no-such-flag", "see `fetcher wash`", "`loader warm` and `loader dry`", "read docs/nothing.md"]
)
def test_an_unknown_name_in_a_message_is_detected(text: str) -> None:
    assert unknown_names(text)
