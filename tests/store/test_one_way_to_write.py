"""Only `store.beneath` changes names below a root: other code would follow a planted link, or ignore a lost lease."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FETCHER = Path(__file__).parents[2] / "fetcher"
MODULES = [
    path
    for room in ("store", "engine", "dropins")
    for path in sorted((FETCHER / room).glob("*.py"))
    if path.name != "beneath.py"
]

OF_OS = {"rename", "replace", "unlink", "remove", "mkdir", "makedirs", "rmdir", "symlink", "link", "chmod", "chown", "truncate"}
OF_SHUTIL = {"rmtree", "move", "copy", "copy2", "copyfile", "copytree"}
OF_A_PATH = {
    "unlink", "mkdir", "rmdir", "rename", "symlink_to", "hardlink_to", "touch", "chmod", "write_text", "write_bytes",
}  # fmt: skip


def breaches(source: str) -> list[str]:
    """The calls that change a name by its path. A call with `dir_fd` is allowed: its directory was opened before."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        module = call.func.value.id if isinstance(call.func.value, ast.Name) else ""
        names = {"os": OF_OS, "shutil": OF_SHUTIL}.get(module, OF_A_PATH)
        relative = any((keyword.arg or "").endswith("dir_fd") for keyword in call.keywords)
        if call.func.attr in names and not relative:
            found.append(f"line {call.lineno}: {ast.unparse(call.func)}")
        if module == "os" and call.func.attr == "open" and "O_CREAT" in ast.unparse(call):
            found.append(f"line {call.lineno}: os.open with O_CREAT")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_module_does_not_change_names_itself(module: Path) -> None:
    assert breaches(module.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "os.rename(a, b)",
        "path.unlink()",
        "shutil.rmtree(a)",
        "(a / b).mkdir()",
        "os.open(a, os.O_WRONLY | os.O_CREAT)",
        "x.y.touch()",
    ],
)
def test_a_direct_write_in_a_module_is_detected(line: str) -> None:
    assert breaches(line)
    assert not breaches("os.link(a, b, dst_dir_fd=above)")
