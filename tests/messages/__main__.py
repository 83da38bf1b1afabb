"""Every error message of both commands as text, taken from the code: `python -m tests.messages` writes messages.txt.

A message is the first argument of an error of the tree, where it is raised. Braces hold what is filled in.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import loader.errors
from fetcher.errors import FetchError

ROOT = Path(__file__).parents[2]
LISTED = Path(__file__).with_name("messages.txt")


def error_names() -> set[str]:
    """The names of all classes of the error tree."""
    found, todo = set(), [FetchError, loader.errors.LoadError]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += kind.__subclasses__()
    return found


def messages() -> list[str]:
    """`Error  module: text` of each, in order."""
    names = error_names()
    modules = sorted([*(ROOT / "fetcher").rglob("*.py"), *(ROOT / "loader").rglob("*.py")])
    return sorted(
        f"{kind:20} {path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')}: {text}"
        for path in modules
        if "testing" not in path.parts
        for kind, text in _of_module(ast.parse(path.read_text()), names)
    )


def _of_module(tree: ast.Module, names: set[str]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
            text = _text(node.args[0])
            if " " in text.strip():  # else the caller's words are passed on
                yield node.func.id, text


def _text(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.FormattedValue(value=value):
            return "{" + ast.unparse(value) + "}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_text(body)} | {_text(orelse)}"
    return "{" + ast.unparse(node) + "}"


if __name__ == "__main__":
    LISTED.write_text("".join(f"{line}\n" for line in messages()))
