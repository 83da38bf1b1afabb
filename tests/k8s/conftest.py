"""The image, built once for all tests and kept for the next run, and fixtures to run it.

Its name is a digest of its inputs, so a changed source gives another image, and podman reuses unchanged layers.
`podman rmi $(podman images --quiet localhost/weightlift)` removes all images.
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
_PARTS = ("cluster", "fetcher", "loader", "k8s/images", "pyproject.toml", "setup.py", "MANIFEST.in")
"""The README is part of the wheel's metadata, but a change of its text needs no new image."""
_NOT_IN_IT = {".pyc", ".so", ".md"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Exclude the build of the image from the timeout of a test."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """Podman with the restrictions of the strictest clusters: `podman.run(image, "fetcher", "key", "hf://org/m")`."""
    return podman_in(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="session")
def base_image(podman: Podman) -> str:
    """Debian with Python, built from Debian's packages: tests cannot reach a registry."""
    name = f"localhost/weightlift-base:{_SUITE}"
    if not podman.has_image(name):
        program("mmdebstrap", package="mmdebstrap")
        _make(podman, "base", f"SUITE={_SUITE}", f"BASE_IMAGE={name}")
    return name


@pytest.fixture(scope="session")
def image(podman: Podman, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the image, built by `make image`. It has no entry point: the first word is fetcher, loader, ..."""
    base = podman("image", "inspect", "--format={{.Id}}", base_image).stdout.strip()
    name = f"localhost/weightlift:test-{_digest(base)}"
    if not podman.has_image(name):
        dist = tmp_path_factory.mktemp("dist")
        _make(podman, "image", f"BASE_IMAGE={base_image}", f"IMAGE={name}", f"DIST={dist}", "ARM=")
    return name


@pytest.fixture(scope="session")
def storage_initializer_image(image: str) -> str:
    """The name of the image with the same layers and KServe's entry point."""
    return f"{image}-storage-initializer"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A directory that every user can write to, like an emptyDir. It is removed after the test: it can hold gigabytes."""
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
    """Return the commands that the wheel installs into the image's PATH."""
    return sorted(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"])


def _digest(*words: str) -> str:
    """Return a digest of the inputs of the image and of `words`."""
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
    """Run make without the options of an outer `make` that runs the tests."""
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
