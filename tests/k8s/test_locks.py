"""The image has the tested versions: its locks, pyproject.toml and constraints.txt agree. `make lock` updates the locks."""

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
    """Return all packages that the installed package `name` needs, directly or indirectly."""
    dependencies: set[str] = set()
    pending = [(name, extra)]
    while pending:
        package, wanted = pending.pop()
        for text in distribution(package).requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": wanted}):
                continue
            dependency = canonicalize_name(requirement.name)
            if dependency not in dependencies:
                dependencies.add(dependency)
                pending.extend((dependency, each) for each in ("", *requirement.extras))
    return dependencies


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_image_has_exactly_the_dependencies_of_fetcher_and_loader_with_all_stores() -> None:
    extras = needed("weightlift", extra="loader") | needed("weightlift", extra="all")
    assert set(pinned(LOCK)) == (needed("weightlift") | extras) - {"weightlift"}


def test_the_image_has_the_tested_versions() -> None:
    tested = constraints()
    assert pinned(LOCK) == {name: tested[name] for name in pinned(LOCK)}


def test_the_lock_of_the_build_has_its_tools() -> None:
    assert {"pip", "cyclonedx-bom", "debsbom"} <= set(pinned(TOOLS))


@pytest.mark.parametrize("line", ["numpy>=2 --hash=sha256:00", "numpy==2.4.6", "numpy==2.4.6 --hash=md5:00"])
def test_a_lock_line_without_version_and_sha256_is_refused(tmp_path: Path, line: str) -> None:
    lock = tmp_path / "lock"
    lock.write_text(line)
    with pytest.raises(ValueError, match="numpy"):
        pinned(lock)


def test_the_image_has_what_certificates_of_peers_are_made_with() -> None:
    """Agents in a pod need nothing else of the extra `cluster`."""
    assert "cryptography" in pinned(LOCK)
