"""Modelplane's sizeGiB, authSecret and change of the revision, in our kinds."""

from __future__ import annotations

from pathlib import Path

from fetcher.testing.origin import Origin
from tests.cluster.controller.kubelet import Kubelet
from tests.cluster.controller.playing import FILES, GOOD, MODELS, Stage, controller
from tests.cluster.systems.applying import apply_model, manifests

NEWER = {**FILES, "config.json": b'{"newer": 1}'}


async def test_another_revision_is_hydrated_beside_the_present_one_and_then_takes_its_place(
    cluster: Stage, kubelet: Kubelet, tmp_path: Path
) -> None:
    wanted = manifests("modelplane")["ModelCache llama"]
    secret = wanted["spec"]["auth"]["secretKeyRef"]
    log = tmp_path / "log"
    with Origin(tokens=[GOOD]) as origin, controller(cluster, log, "--hub-endpoint", origin.endpoint):
        repository = origin.add_repo("org/model", FILES, private=True, readers=[GOOD], revisions=["v1"])
        await cluster.secret(secret["name"], GOOD, key=secret["key"])
        name = await apply_model(cluster, wanted)
        assert await kubelet.run(await kubelet.next_pod()) == 0
        await cluster.until_condition(name, "Ready", ("True", "Ready"))
        claim, status = await cluster.claim(name), await cluster.status(name)
        assert claim is not None
        assert claim["spec"]["resources"]["requests"]["storage"] == "900Gi"
        assert (status["progress"], status["claimName"], status["artifact"]["revision"]) == ("1/1", name, repository.commit)
        first = kubelet.volume / status["artifact"]["key"]
        assert (first / "config.json").read_bytes() == FILES["config.json"]

        newer = origin.update_repo(repository, NEWER, revision="v2")
        await cluster.api.merge(MODELS, name, cluster.tenant, {"spec": {"source": {"revision": "v2"}}})
        pod = await kubelet.next_pod()
        await cluster.until_condition(name, "Progressing", ("True", "Fetching"))
        status = await cluster.status(name)
        assert (await cluster.condition(name, "Ready"), status["artifact"]["key"]) == (("True", "Ready"), first.name)
        assert await kubelet.run(pod) == 0
        await cluster.until_condition(name, "Progressing", ("False", "Complete"))
        status = await cluster.status(name)
        second = kubelet.volume / status["artifact"]["key"]
        assert (second != first, status["artifact"]["revision"]) == (True, newer)
        assert (second / "config.json").read_bytes() == NEWER["config.json"]
        assert (first / "config.json").read_bytes() == FILES["config.json"]
    assert GOOD not in log.read_text()
