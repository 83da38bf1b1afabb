"""KServe's node group and local model, in our kinds."""

from __future__ import annotations

from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.testing.origin import Origin
from tests.cluster.controller.playing import FILES, Stage, controller
from tests.cluster.systems.applying import agent, apply_model, apply_pool, manifests

MiB = 1024 * 1024


async def test_a_node_group_is_a_pool_whose_limit_holds_and_the_claim_of_a_service_has_the_files_of_its_node(
    cluster: Stage, origin: Origin, directory: Path, tmp_path: Path
) -> None:
    found, root = manifests("kserve"), directory
    pool = found["CachePool gpu"]
    pool["spec"] |= {"allowRootFilesystem": True, "minFree": "0", "limit": "12Mi"}  # no disk of its own, and a small one
    origin.add_repo("org/large", {"model.safetensors": bytes(20 * MiB)})
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await apply_pool(cluster, pool, root)
        async with agent(cluster, cluster.nodes[0]):
            name = await apply_model(cluster, found["ModelCache llama"])
            await cluster.until_condition(name, "Ready", ("True", "Ready"))
            status, volume = await cluster.status(name), await cluster.volume(name)
            assert status["copies"] == {"desired": 1, "ready": 1, "failed": 0, "warm": 0}
            assert status["claimName"] == "llama"
            key = ArtifactRef("hf://org/model").key
            assert volume is not None
            assert volume["spec"]["local"]["path"] == str(root / key)
            assert {path.name: path.read_bytes() for path in (root / key).iterdir() if path.is_file()} == FILES

            await cluster.model("large", "hf://org/large")
            await cluster.until_condition("large", "CapacityExceeded", ("True", "CapacityExceeded"))
            assert (await cluster.status("large"))["copies"] == {"desired": 1, "ready": 0, "failed": 1, "warm": 0}
            assert await cluster.condition(name, "Ready") == ("True", "Ready")
