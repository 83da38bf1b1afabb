"""The image: its programs and packages, its labels and bill of materials, and how it starts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from fetcher import __version__
from tests.k8s.conftest import REPOSITORY, console_scripts
from tests.k8s.locks import pinned
from tests.lab.containers import Podman

_PROBE = """
import importlib.metadata, importlib.util, json, os, pathlib, shutil, stat
modules = ["pip", "ensurepip", "setuptools", "wheel"]
programs = ["pip", "pip3", "cc", "gcc", "clang", "tcc", "ld", "as", "make", "curl", "wget", "git"]
files = [path for top in ("/usr", "/opt", "/etc") for path in pathlib.Path(top).rglob("*") if not path.is_symlink()]
print(json.dumps({
    "installers": [name for name in modules if importlib.util.find_spec(name)],
    "programs": [name for name in programs if shutil.which(name)],
    "privileged": [str(path) for path in files if path.is_file() and path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)],
    "writable": [str(path) for path in files if os.access(path, os.W_OK)],
    "packages": {each.name: each.version for each in importlib.metadata.distributions()},
    "debian": [line.split()[1] for line in open("/var/lib/dpkg/status") if line.startswith("Package:")],
    "extension": all(importlib.util.find_spec("fetcher.integrity." + name) for name in ("_sha256", "_crc")),
    "bill": json.load(open("/opt/weightlift/sbom.cdx.json")),
}))
"""
"""Runs in the image as its default user."""


@pytest.fixture(scope="module")
def facts(podman: Podman, image: str) -> dict[str, Any]:
    """The facts about the image's content that the probe collects."""
    done = podman.run(image, "python", "-c", _PROBE)
    assert done.returncode == 0, done.stderr
    collected: dict[str, Any] = json.loads(done.stdout)
    return collected


@pytest.fixture(scope="module")
def configuration(podman: Podman, image: str) -> dict[str, Any]:
    (inspected,) = json.loads(podman("image", "inspect", image).stdout)
    only: dict[str, Any] = inspected
    return only


class TestContents:
    def test_the_image_has_no_installers_or_build_tools(self, facts: dict[str, Any]) -> None:
        assert (facts["installers"], facts["programs"]) == ([], [])

    def test_no_file_is_privileged_or_writable(self, facts: dict[str, Any]) -> None:
        assert (facts["privileged"], facts["writable"]) == ([], [])

    def test_the_packages_are_exactly_those_of_the_lock(self, facts: dict[str, Any]) -> None:
        packages = {canonicalize_name(name): version for name, version in facts["packages"].items()}
        assert packages.pop(canonicalize_name("weightlift")) == __version__
        assert packages == pinned(REPOSITORY / "k8s/images/requirements.txt")

    def test_the_compiled_extension_is_installed(self, facts: dict[str, Any]) -> None:
        assert facts["extension"]


class TestBillOfMaterials:
    def test_it_lists_every_python_package_with_its_version(self, facts: dict[str, Any]) -> None:
        listed = {(each["name"], each["version"]) for each in components(facts["bill"], "pkg:pypi/")}
        installed = {(canonicalize_name(name), version) for name, version in facts["packages"].items()}
        assert {(canonicalize_name(name), version) for name, version in listed} >= installed - {("weightlift", __version__)}

    def test_it_lists_every_debian_package(self, facts: dict[str, Any]) -> None:
        listed = {each["name"] for each in components(facts["bill"], "pkg:deb/")}
        assert listed >= set(facts["debian"])

    def test_it_is_cyclonedx_for_this_version(self, facts: dict[str, Any]) -> None:
        bill = facts["bill"]
        about = bill["metadata"]["component"]
        assert (bill["bomFormat"], about["name"], about["version"]) == ("CycloneDX", "weightlift", __version__)


def components(bill: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return the components whose package URL starts with `kind`."""
    return [each for each in bill["components"] if each.get("purl", "").startswith(kind)]


class TestConfiguration:
    def test_the_user_is_numeric_and_not_root(self, configuration: dict[str, Any]) -> None:
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", configuration["Config"]["User"])

    def test_the_labels_describe_the_image(self, configuration: dict[str, Any], base_image: str) -> None:
        labels = configuration["Config"]["Labels"]
        values = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
        assert (values["title"], values["version"], values["licenses"]) == ("weightlift", __version__, "Apache-2.0")
        assert values["base.name"] == base_image

    def test_the_first_word_can_be_any_command(self, configuration: dict[str, Any]) -> None:
        assert not configuration["Config"].get("Entrypoint")
        assert configuration["Config"]["Cmd"] == ["fetcher", "--help"]

    def test_kserves_image_differs_only_in_its_entry_point(
        self, podman: Podman, configuration: dict[str, Any], storage_initializer_image: str
    ) -> None:
        (twin,) = json.loads(podman("image", "inspect", storage_initializer_image).stdout)
        assert twin["Config"]["Entrypoint"] == ["storage-initializer"]
        assert twin["RootFS"] == configuration["RootFS"]


class TestStart:
    @pytest.mark.parametrize("command", console_scripts())
    def test_every_command_starts_without_a_shell(self, podman: Podman, image: str, tmp_path: Path, command: str) -> None:
        """Without arguments, each command prints its usage, without a traceback."""
        shells = {tmp_path / name: f"/usr/bin/{name}:ro" for name in ("dash", "bash")}
        for nothing in shells:
            nothing.touch()
        done = podman.run(image, command, mounts=shells)
        assert done.returncode in (1, 64, 78), done.stderr
        assert done.stderr
        assert "Traceback" not in done.stderr

    def test_no_command_compiles_at_its_start(self, podman: Podman, image: str) -> None:
        """On a read-only root filesystem, the network modules would be compiled at each start, which takes a second."""
        modules = "fetcher.cli.running, fetcher.engine.pipeline, fetcher.transport.client, loader.reading.reader"
        done = podman.run(image, "python", "-v", "-c", f"import {modules}")
        assert done.returncode == 0, done.stderr
        assert "matches" in done.stderr
        assert not re.findall(r"^# code object from (/.*\.py)$", done.stderr, re.MULTILINE)
