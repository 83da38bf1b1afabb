"""FlexInfer's strategies and the fields of its `status.cache`, in our kinds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import loader
from fetcher.artifact import ArtifactRef
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.kubelet import Kubelet
from tests.cluster.controller.playing import FILES, Stage, controller
from tests.cluster.systems.applying import agent, apply_model, apply_pool, manifests
from tests.k8s.manifests.rendering import K8S
from tests.lab.command import run_fetcher
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
PAGE = K8S.parent / "docs" / "systems.md"


def status_cache(cluster: Stage, name: str) -> dict[str, str]:
    """The fields of FlexInfer's `status.cache` of a ModelCache, by the commands that the documentation has for them."""
    section = PAGE.read_text().partition("| `Model.status.cache` |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+)` \|$", section, re.MULTILINE)
    shown = {field: kubernetes().run("-n", cluster.tenant, *shlex_split(words, name)).stdout for field, words in rows}
    assert shown.keys() == {"ready", "message", "pvcName", "sizeBytes", "jobName", "jobPhase"}
    return shown


def shlex_split(words: str, name: str) -> list[str]:
    """Split a command whose quotes are those of its JSONPath."""
    return [each.replace("\0", '"').replace("NAME", name) for each in shlex.split(words.replace('"', "\0"))]


async def test_shared_pvc_is_a_claim_with_flexinfers_name_that_its_pvc_source_finds_verified(
    cluster: Stage, kubelet: Kubelet, origin: Origin, tmp_path: Path
) -> None:
    wanted = manifests("flexinfer")["ModelCache llama-cache"]
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        name = await apply_model(cluster, wanted)
        pod = await kubelet.next_pod()
        claim = await cluster.claim("llama-cache")
        assert claim is not None
        assert claim["spec"]["resources"]["requests"]["storage"] == wanted["spec"]["size"]
        assert claim["spec"]["storageClassName"] == "longhorn"
        await cluster.until_condition(name, "Progressing", ("True", "Fetching"))
        before = status_cache(cluster, name)
        assert (before["ready"], before["jobPhase"], before["pvcName"]) == ("False", "Fetching", "")

        assert await kubelet.run(pod) == 0
        await cluster.until_condition(name, "Progressing", ("False", "Complete"))
        told = status_cache(cluster, name)
        assert told["jobName"] == pod["metadata"]["labels"]["job-name"]
        assert (told["ready"], told["jobPhase"], told["pvcName"]) == ("True", "Complete", "llama-cache")
        assert int(told["sizeBytes"]) == sum(map(len, FILES.values()))
        assert "claim llama-cache holds" in told["message"]

    key = (await cluster.status(name))["artifact"]["key"]
    (source,) = re.findall(r"source: (pvc://\S+)", (K8S / "integrations/flexinfer/model-cache/shared-pvc.yaml").read_text())
    assert source == f"pvc://llama-cache/{key}"
    done = run_fetcher("fetch", source, "--pvc-mount", f"llama-cache={kubelet.volume}", "--json")
    assert (done.returncode, '"verified":true' in done.stdout.replace(" ", "")) == (0, True), done.stderr


async def test_memory_is_a_copy_on_the_tmpfs_of_the_node_and_none_leaves_nothing_anywhere(
    cluster: Stage, tmp_path: Path, small_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, node = manifests("flexinfer"), cluster.nodes[0]
    root = small_filesystem("tmpfs", size=16 * MiB).path
    made = make_checkpoint(tmp_path / "source", shards=2, shard_size=MiB)
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    with Origin() as origin, controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        origin.add_repo("org/model", files)
        await apply_pool(cluster, found["CachePool memory"], root)
        async with agent(cluster, node):
            home = tmp_path / "home"
            home.mkdir()
            monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
            monkeypatch.setenv("HOME", str(home))
            there = [name for name, _ in loader.open("hf://org/model").tensors()]
            assert len(there) > 2
            assert not list(home.iterdir())
            assert not list(root.rglob("*.safetensors"))
            assert await cluster.wanted(node) == {}

            name = await apply_model(cluster, found["ModelCache llama"])
            await cluster.until_condition(name, "Ready", ("True", "Ready"))
            key = ArtifactRef("hf://org/model").key
            assert {path.name: path.read_bytes() for path in (root / key).iterdir() if path.is_file()} == files
            volume = await cluster.volume(name)
            assert volume is not None
            assert volume["spec"]["local"]["path"] == str(root / key)
