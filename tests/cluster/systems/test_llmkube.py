"""LLMKube's claimName, refresh policies and Degraded condition, in our kinds."""

from __future__ import annotations

from pathlib import Path

from cluster.client.endpoints import CLAIMS, JOBS
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.kubelet import Kubelet
from tests.cluster.controller.playing import MODELS, Document, Stage, controller, document
from tests.cluster.systems.applying import apply_model, manifests

FILE = "Qwen3-14B-Q4_K_M.gguf"
KEY = "9da7779bcdce8224"
"""As LLMKube computes it of the source."""


async def make_claim(cluster: Stage, name: str) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    await cluster.api.create(CLAIMS, {**document(CLAIMS, name, cluster.tenant), "spec": spec})


async def test_a_missing_claim_is_degraded_and_in_the_users_claim_the_file_is_where_llmkubes_downloader_looks(
    cluster: Stage, kubelet: Kubelet, tmp_path: Path
) -> None:
    wanted, log = manifests("llmkube")["ModelCache qwen3-14b"], tmp_path / "log"
    claim = wanted["spec"]["placement"]["claim"]["name"]
    with Origin() as origin:
        repository = origin.add_repo("Qwen/Qwen3-14B-GGUF", {FILE: b"first"})
        with controller(cluster, log, "--hub-endpoint", origin.endpoint):
            name = await apply_model(cluster, wanted)
            await cluster.until_condition(name, "Degraded", ("True", "ClaimMissing"))
            await cluster.until_told(name, "Warning", "ClaimMissing")
            assert await cluster.find(CLAIMS, claim, cluster.tenant) is None
            assert await jobs(cluster) == []

            await make_claim(cluster, claim)
            assert await kubelet.run(await kubelet.next_pod()) == 0
            await cluster.until_condition(name, "Ready", ("True", "Ready"))
            assert await cluster.condition(name, "Degraded") == ("False", "AsExpected")
            assert (kubelet.volume / KEY / FILE).read_bytes() == b"first"

        newer = origin.update_repo(repository, {FILE: b"second"})
        origin.clear_requests()
        with controller(cluster, log, "--hub-endpoint", origin.endpoint):

            async def is_asked() -> bool:
                return bool(origin.requests) and await cluster.condition(name, "Resolved") == ("True", "Resolved")

            async def is_newer() -> bool:
                return str((await cluster.status(name))["artifact"]["revision"]) == newer

            async def is_newer_or_goes_on() -> bool:
                return await is_newer() or any(each["status"]["phase"] == "Pending" for each in await kubelet.pods())

            # IfNotPresent: what the branch became is not fetched.
            await cluster.until("the controller has asked the source again", is_asked)
            assert len(await jobs(cluster)) == 1
            # OnChange: it is, and the former files stay Ready until then.
            spec = {"refreshPolicy": "OnChange", "refreshInterval": "1s"}
            await cluster.api.merge(MODELS, name, cluster.tenant, {"spec": spec})
            while not await is_newer():
                pod = await kubelet.next_pod()
                assert await cluster.condition(name, "Ready") == ("True", "Ready")
                assert (kubelet.volume / KEY / FILE).read_bytes() == b"first"
                assert await kubelet.run(pod) == 0
                # A Job of the revision that was known so far may come first.
                await cluster.until("it is newer, or another Job follows", is_newer_or_goes_on)
            assert (kubelet.volume / KEY / FILE).read_bytes() == b"second"

            # A source that does not answer the question keeps the copy.
            origin.faults.add(Fault(Status(401)))
            await cluster.until_condition(name, "Degraded", ("True", "Unauthorized"))
            assert await cluster.condition(name, "Ready") == ("True", "Ready")

            await cluster.clear_models()
            assert await cluster.find(CLAIMS, claim, cluster.tenant) is not None


async def jobs(cluster: Stage) -> list[Document]:
    return (await cluster.api.list(JOBS, cluster.tenant)).items


def test_a_pvc_source_has_no_claim() -> None:
    wanted = manifests("llmkube")["ModelCache qwen3-14b"]
    wanted["spec"]["source"] = {"uri": "pvc://models/qwen"}
    assert "a pvc:// source is a claim already" in kubernetes().apply(wanted)
