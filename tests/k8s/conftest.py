"""The image, built once for all tests and kept for the next run, and what is needed to run it.

Its name is made of everything that goes into it, so a changed source means another image, and layers that did not change
are podman's to reuse. `podman rmi $(podman images --quiet localhost/weightlift)` removes them all.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.availability import program
from tests.lab.containers import Podman, podman_in

REPOSITORY = Path(__file__).parents[2]

_SUITE = "bookworm"
_PARTS = ("fetcher", "loader", "k8s/images", "pyproject.toml", "setup.py", "MANIFEST.in")
"""Of the wheel's metadata the README is part too; a word changed there is no other image."""
_NOT_IN_IT = {".pyc", ".so", ".md"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building the image is no part of the time that a test may take."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """Runs images, restricted as the strictest clusters do: `podman.run(image, "fetcher", "key", "hf://org/m")`."""
    return podman_in(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="session")
def base_image(podman: Podman) -> str:
    """Debian with Python, made of Debian's packages: no registry can be reached from tests."""
    name = f"localhost/weightlift-base:{_SUITE}"
    if not podman.has_image(name):
        program("mmdebstrap", package="mmdebstrap")
        _make(podman, "base", f"SUITE={_SUITE}", f"BASE_IMAGE={name}")
    return name


@pytest.fixture(scope="session")
def image(podman: Podman, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the image, made by `make image`. It has no entry point: the first word is fetcher, loader, ..."""
    base = podman("image", "inspect", "--format={{.Id}}", base_image).stdout.strip()
    name = f"localhost/weightlift:test-{_digest(base)}"
    if not podman.has_image(name):
        dist = tmp_path_factory.mktemp("dist")
        _make(podman, "image", f"BASE_IMAGE={base_image}", f"IMAGE={name}", f"DIST={dist}", "ARM=")
    return name


@pytest.fixture(scope="session")
def storage_initializer_image(image: str) -> str:
    """The same layers with an entry point of their own, as KServe wants it."""
    return f"{image}-storage-initializer"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A directory that any user may write, as an emptyDir is, and gone with its user: it may hold gigabytes."""
    directory = tmp_path / "volume"
    directory.mkdir()
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def termination_log(tmp_path: Path) -> Path:
    """The file that the kubelet mounts at /dev/termination-log."""
    path = tmp_path / "termination-log"
    path.touch()
    path.chmod(0o666)
    return path


def console_scripts() -> list[str]:
    """What the wheel installs into the image's PATH."""
    return sorted(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"])


def _digest(*words: str) -> str:
    """Of all that goes into the image."""
    digest = hashlib.sha256("\n".join(words).encode())
    for path in _inputs():
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _inputs() -> Iterator[Path]:
    for part in _PARTS:
        top = REPOSITORY / part
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and path.suffix not in _NOT_IN_IT:
                yield path


def _make(podman: Podman, *words: str) -> None:
    """Outside of any `make` that runs this: its options are not meant for this one."""
    environment = {name: value for name, value in podman.environment().items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        [program("make", package="make"), *words],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"make {' '.join(words)} failed:\n{done.stdout[-5000:]}", pytrace=False)
