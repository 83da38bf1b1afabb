"""File names on a volume are UTF-8, whatever the locale of the pod."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "größe-模型.json"

# Python switches to UTF-8 by itself in the C locale. PYTHONUTF8=0 forbids that and leaves ASCII, which represents any locale
# that lacks a character, without installing one.
LOCALES = [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "xx_XX.ISO-8859-1"}]


def run(module: str, *arguments: str, locale: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))} | locale
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environ, capture_output=True, check=False, timeout=60)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "quelle-源"
    directory.mkdir()
    (directory / NAME).write_text("{}")
    return directory


@pytest.mark.parametrize("locale", LOCALES, ids=["C", "ASCII", "one that is not installed"])
class TestLocale:
    def test_a_name_outside_the_locale_is_stored_as_utf_8(self, source: Path, tmp_path: Path, locale: dict[str, str]) -> None:
        done = run("fetcher", "fetch", str(source), "--cache-dir", str(tmp_path / "cäche"), locale=locale)
        assert done.returncode == 0, done.stderr
        artifact = Path(done.stdout.decode().rstrip("\n"))
        assert (artifact / NAME).read_text() == "{}"
        assert b"Traceback" not in done.stderr

    @pytest.mark.parametrize("command", [("plan",), ("fetch", "--json"), ("key",)])
    def test_every_command_prints_such_a_path(
        self, source: Path, tmp_path: Path, locale: dict[str, str], command: tuple[str, ...]
    ) -> None:
        where = () if command == ("key",) else ("--cache-dir", str(tmp_path / "cäche"))
        done = run("fetcher", command[0], str(source), *where, *command[1:], locale=locale)
        assert done.returncode == 0, done.stderr
        if "--json" in command:
            assert "cäche" in json.loads(done.stdout)["path"]

    def test_the_key_is_the_same_in_every_locale(self, source: Path, locale: dict[str, str]) -> None:
        assert run("fetcher", "key", str(source), locale=locale).stdout == run("fetcher", "key", str(source), locale={}).stdout

    def test_an_error_names_such_a_path_in_one_sentence(self, tmp_path: Path, locale: dict[str, str]) -> None:
        for module, command in (("fetcher", "show"), ("loader", "status")):
            done = run(module, command, str(tmp_path / "nöch-nicht"), locale=locale)
            assert done.returncode == 66, done.stderr
            assert b"Traceback" not in done.stderr
