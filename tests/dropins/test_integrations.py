"""The manifests in `k8s/integrations/kserve` and `llmkube` match the commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fetcher.artifact import ArtifactRef
from fetcher.dropins import kserve
from fetcher.errors import UnsupportedScheme
from fetcher.testing.origin import Origin
from tests.dropins.conftest import tree
from tests.lab.command import run_command

INTEGRATIONS = Path(__file__).parents[2] / "k8s" / "integrations"


def resources(system: str) -> Iterator[dict[str, Any]]:
    for path in sorted((INTEGRATIONS / system).glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def of_kind(system: str, kind: str) -> list[dict[str, Any]]:
    return [resource for resource in resources(system) if resource["kind"] == kind]


@pytest.mark.parametrize("system", ["kserve", "llmkube"])
def test_a_readme_has_at_most_15_lines(system: str) -> None:
    assert len((INTEGRATIONS / system / "README.md").read_text().splitlines()) <= 15


class TestStorageContainers:
    def test_each_workload_type_has_a_storage_container(self) -> None:
        kinds = {each["spec"]["workloadType"] for each in of_kind("kserve", "ClusterStorageContainer")}
        assert kinds == {"initContainer", "localModelDownloadJob"}

    @pytest.mark.parametrize(
        "resource", of_kind("kserve", "ClusterStorageContainer"), ids=lambda each: each["metadata"]["name"]
    )
    def test_a_storage_container_has_the_name_kserve_expects_and_no_command(self, resource: dict[str, Any]) -> None:
        container = resource["spec"]["container"]
        assert container["name"] == "storage-initializer"
        assert not {"command", "args"} & set(container)

    @pytest.mark.parametrize(
        ("source", "supported"),
        [
            ("hf://org/model", True), ("hf://org/model:main", True), ("https://host/model.tgz", True), ("http://h:80/m", True),
            ("s3://bucket/model", True), ("gs://bucket/model", True), ("oci://registry/model", True),
            ("oci+fetch://registry/model", True), ("https://account.blob.core.windows.net/c/model", True),
            ("modelscope://org/model", False), ("hdfs://host/model", False), ("pvc://claim/model", False),
        ],
    )  # fmt: skip
    def test_a_storage_container_accepts_the_sources_of_the_command(self, source: str, supported: bool) -> None:
        for resource in of_kind("kserve", "ClusterStorageContainer"):
            formats = resource["spec"]["supportedUriFormats"]
            matches = [
                source.startswith(each["prefix"]) if "prefix" in each else re.search(each["regex"], source) for each in formats
            ]
            assert bool(any(matches)) == supported
        if supported:
            assert kserve.kind_of(source, exists=False) in ("repository", "file", "archive")
        else:
            with pytest.raises(UnsupportedScheme):
                kserve.kind_of(source, exists=False)


class TestStagingJob:
    @pytest.fixture
    def container(self) -> dict[str, Any]:
        (job,) = of_kind("llmkube", "Job")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        only: dict[str, Any] = container
        return only

    def test_the_job_places_the_file_for_llmkube(self, container: dict[str, Any], origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("Qwen/Qwen3-14B-GGUF", {"Qwen3-14B-Q4_K_M.gguf": b"weights", "README.md": b""})
        mounted = container["volumeMounts"][0]["mountPath"]
        env = {
            each["name"]: each["value"].replace("https://huggingface.co", origin.endpoint).replace(mounted, str(tmp_path))
            for each in container["env"]
        }
        (command,) = container["command"]
        done = run_command([str(Path(sys.executable).with_name(command))], env=env)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path) == {"9da7779bcdce8224/Qwen3-14B-Q4_K_M.gguf": b"weights"}

    def test_the_job_uses_the_key_of_its_source(self, container: dict[str, Any]) -> None:
        directory = next(each["value"] for each in container["env"] if each["name"] == "CACHE_DIR")
        assert directory.endswith("/" + ArtifactRef("hf://Qwen/Qwen3-14B-GGUF").key)


class TestAdmissionPolicy:
    def test_the_policy_changes_only_image_command_and_arguments(self) -> None:
        (policy,) = of_kind("llmkube", "MutatingAdmissionPolicy")
        (mutation,) = policy["spec"]["mutations"]
        patches = re.findall(r'JSONPatch\{op: "(\w+)", path: ([^,]+), value: (.+?)\}', mutation["jsonPatch"]["expression"])
        assert [(operation, path) for operation, path, _ in patches] == [
            ("replace", 'variables.container + "/image"'),
            ("add", 'variables.container + "/command"'),
            ("add", 'variables.container + "/args"'),
        ]
        assert patches[1][2] == '["model-downloader"]'
        (job,) = of_kind("llmkube", "Job")
        assert patches[0][2].strip('"') == job["spec"]["template"]["spec"]["containers"][0]["image"]
        assert "model-cache-prep" not in str(policy["spec"])

    def test_the_policy_is_not_applied_by_default(self) -> None:
        (kustomization,) = of_kind("llmkube", "Kustomization")
        assert kustomization["resources"] == ["stage.yaml"]
