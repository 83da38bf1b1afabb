"""Models in claims against a real API server, whose own controller runs the Jobs. The test plays the kubelet of their pods."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.client.endpoints import CLAIMS, JOBS, Endpoint
from fetcher.artifact import ArtifactRef
from fetcher.testing.origin import Origin
from tests.cluster.controller.kubelet import Kubelet
from tests.cluster.controller.playing import FILES, GOOD, MODELS, Document, Stage, controller, document


async def model(cluster: Stage, uri: str, placement: Document, **more: object) -> None:
    spec = {"source": {"uri": uri}, "placement": placement, **more}
    await cluster.api.create(MODELS, {**document(MODELS, "m", cluster.tenant), "spec": spec})


async def change(cluster: Stage, spec: Document) -> None:
    await cluster.api.merge(MODELS, "m", cluster.tenant, {"spec": spec})


async def users_claim(cluster: Stage) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    await cluster.api.create(CLAIMS, {**document(CLAIMS, "models", cluster.tenant), "spec": spec})


async def until_gone(cluster: Stage, endpoint: Endpoint) -> None:
    """Wait until Kubernetes has collected what belonged to a ModelCache."""

    async def gone() -> bool:
        return not (await cluster.api.list(endpoint, cluster.tenant)).items

    await cluster.until(f"the {endpoint.plural} are gone", gone)


async def test_a_private_model_is_fetched_into_a_claim_refetched_after_a_change_and_leaves_the_claim_alone(
    cluster: Stage, kubelet: Kubelet, origin: Origin, tmp_path: Path
) -> None:
    await cluster.secret("hub", GOOD)
    auth = {"secretKeyRef": {"name": "hub", "key": "token"}}
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await model(cluster, "hf://org/private", {"claim": {"name": "models"}}, auth=auth)
        await cluster.until_condition("m", "Degraded", ("True", "ClaimMissing"))
        assert await cluster.find(CLAIMS, "models", cluster.tenant) is None

        await users_claim(cluster)
        pod = await kubelet.next_pod()
        assert await cluster.condition("m", "Ready") != ("True", "Ready")
        assert GOOD not in str(pod)
        assert await kubelet.run(pod) == 0
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        status = await cluster.status("m")
        key = ArtifactRef("hf://org/private").key
        assert {path.name: path.read_bytes() for path in (kubelet.volume / key).iterdir() if path.is_file()} == FILES
        assert (status["claimName"], status["progress"], status["artifact"]["key"]) == ("models", "1/1", key)
        assert await cluster.condition("m", "Verified") == ("True", "Digests")

        await change(cluster, {"source": {"include": ["*.json"]}})
        pod = await kubelet.next_pod()
        await cluster.until_condition("m", "Progressing", ("True", "Fetching"))
        status = await cluster.status("m")
        assert (await cluster.condition("m", "Ready"), status["artifact"]["key"]) == (("True", "Ready"), key)
        assert await kubelet.run(pod) == 0
        await cluster.until_condition("m", "Progressing", ("False", "Complete"))
        status = await cluster.status("m")
        smaller = status["artifact"]["key"]
        assert smaller == ArtifactRef("hf://org/private", None, ("*.json",)).key
        assert [path.name for path in (kubelet.volume / smaller).iterdir() if path.is_file()] == ["config.json"]
        assert (kubelet.volume / key / "config.json").exists()

        await cluster.clear_models()
        await until_gone(cluster, JOBS)
        assert await cluster.find(CLAIMS, "models", cluster.tenant) is not None
    assert GOOD not in (tmp_path / "log").read_text()


async def test_a_claim_of_ours_is_made_filled_and_kept_and_a_restarted_controller_makes_no_second_job(
    cluster: Stage, kubelet: Kubelet, origin: Origin, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with controller(cluster, log, "--hub-endpoint", origin.endpoint):
        await model(cluster, "hf://org/model", {"claimTemplate": {}})
        await kubelet.next_pod()
    with controller(cluster, log, "--hub-endpoint", origin.endpoint):
        (pod,) = await kubelet.pods()
        assert await kubelet.run(pod) == 0
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        (job,) = (await cluster.api.list(JOBS, cluster.tenant)).items
        claim = await cluster.claim("m")
        assert claim is not None
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        assert claim["spec"]["resources"]["requests"]["storage"] == "65Mi"
        assert len(await kubelet.pods()) == 1

        await cluster.api.delete(JOBS, job["metadata"]["name"], cluster.tenant, uid=job["metadata"]["uid"])
        await until_gone(cluster, JOBS)
        await change(cluster, {"placement": {"claimTemplate": {"retention": "Delete"}}})

        async def told() -> bool:
            found = await cluster.claim("m") or {}
            return str(found["metadata"]["annotations"]["weightlift.dev/retention"]) == "Delete"

        await cluster.until("the claim knows that it goes", told)
        assert (await cluster.api.list(JOBS, cluster.tenant)).items == []
        await cluster.clear_models()

        async def going() -> bool:
            return await cluster.claim("m") is None

        await cluster.until("the claim is gone", going)


async def test_the_last_word_of_a_failed_pod_is_the_reason(
    cluster: Stage, kubelet: Kubelet, origin: Origin, tmp_path: Path
) -> None:
    await users_claim(cluster)
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await model(cluster, "hf://org/model", {"claim": {"name": "models"}}, verification={"require": "Digest"})
        pod = await kubelet.next_pod()
        shutil.rmtree(kubelet.volume)
        kubelet.volume.write_text("no directory")
        assert await kubelet.run(pod) == 73
        await cluster.until_condition("m", "Degraded", ("True", "CannotWrite"))
        await cluster.until_told("m", "Warning", "CannotWrite")
        assert await cluster.condition("m", "Ready") == ("False", "CannotWrite")
