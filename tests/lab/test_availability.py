"""EXTRAS selects the installed packages, and a missing part fails if the whole lab is required."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

MISSING = """
from tests.lab import availability
{use}
def test_nothing(): ...
"""


def collected(use: str, tmp_path: Path, *, required: bool) -> subprocess.CompletedProcess[str]:
    """Run pytest on a module that needs a part that this machine lacks."""
    module = tmp_path / "test_it.py"
    module.write_text(MISSING.format(use=use))
    environ = os.environ | {"WEIGHTLIFT_REQUIRE_LAB": "1" if required else "", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(module)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    "use",
    ['availability.require_package("no_such_package", extra="torch")', 'availability.program("nonesuch", package="nonesuch")'],
)
class TestMissingPart:
    def test_a_test_that_needs_it_is_skipped_with_its_name(self, use: str, tmp_path: Path) -> None:
        done = collected(use, tmp_path, required=False)
        assert "1 skipped" in done.stdout
        assert re.search("the lab has no .*(EXTRAS=dev,torch|apt-get install nonesuch)", done.stdout)

    def test_a_test_that_needs_it_fails_if_the_lab_is_required(self, use: str, tmp_path: Path) -> None:
        done = collected(use, tmp_path, required=True)
        assert done.returncode not in (0, 5)
        assert "WEIGHTLIFT_REQUIRE_LAB=1" in done.stdout


def test_tests_skip_for_a_missing_part_only_by_the_lab() -> None:
    others = [
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "tests").rglob("*.py")
        if re.search(r"pytest\.importorskip|mark\.skipif", path.read_text()) and path != Path(__file__)
    ]
    assert others == []


class TestExtras:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """A checkout after `make setup`."""
        for name in ("Makefile", "pyproject.toml", "constraints.txt", "setup.py"):
            shutil.copy(REPOSITORY / name, tmp_path)
        (tmp_path / ".venv").mkdir()
        (tmp_path / ".venv" / ".ready-dev").touch()
        return tmp_path

    def made(self, checkout: Path, *arguments: str) -> str:
        command = ["make", "--dry-run", "--no-print-directory", *arguments]
        # These tests can run below a `make test EXTRAS=...`.
        environ = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "EXTRAS")}
        done = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    def test_additional_extras_are_installed(self, checkout: Path) -> None:
        assert "-e '.[dev,torch]'" in self.made(checkout, "test", "EXTRAS=dev,torch")

    def test_installed_extras_are_not_installed_again(self, checkout: Path) -> None:
        assert "pip install" not in self.made(checkout, "test")
        (checkout / ".venv" / ".ready-dev-torch").touch()
        assert "pip install" not in self.made(checkout, "test")
        assert "pip install" not in self.made(checkout, "test", "EXTRAS=dev,torch")
