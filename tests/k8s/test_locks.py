"""The image is made of what the tests ran with: its locks, pyproject.toml and constraints.txt agree. `make lock` sees to it."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.k8s.conftest import REPOSITORY
from tests.k8s.locks import pinned

LOCK = REPOSITORY / "k8s/images/requirements.txt"
TOOLS = REPOSITORY / "k8s/images/tools.txt"


def needed(name: str, extra: str = "") -> set[str]:
    """The packages that `name`, installed here, runs with, down to the last."""
    found: set[str] = set()
    pending = [(name, extra)]
    while pending:
        package, wanted = pending.pop()
        for text in distribution(package).requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": wanted}):
                continue
            dependency = canonicalize_name(requirement.name)
            if dependency not in found:
                found.add(dependency)
                pending.extend((dependency, each) for each in ("", *requirement.extras))
    return found


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_image_has_what_fetcher_and_loader_need_and_nothing_else() -> None:
    assert set(pinned(LOCK)) == needed("weightlift") | needed("weightlift", extra="loader")


def test_in_the_versions_that_the_tests_run_with() -> None:
    tested = constraints()
    assert pinned(LOCK) == {name: tested[name] for name in pinned(LOCK)}


def test_the_build_has_its_tools() -> None:
    assert {"pip", "cyclonedx-bom", "debsbom"} <= set(pinned(TOOLS))


@pytest.mark.parametrize("line", ["numpy>=2 --hash=sha256:00", "numpy==2.4.6", "numpy==2.4.6 --hash=md5:00"])
def test_a_line_that_would_let_anything_in_is_no_lock(tmp_path: Path, line: str) -> None:
    lock = tmp_path / "lock"
    lock.write_text(line)
    with pytest.raises(ValueError, match="numpy"):
        pinned(lock)
