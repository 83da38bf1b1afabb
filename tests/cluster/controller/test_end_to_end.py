"""The controller as a process against a real API server. The test plays the agents; the source is a real Hub on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.client.endpoints import EVENTS
from fetcher.artifact import ArtifactRef
from fetcher.testing.origin import Origin
from tests.cluster.controller.playing import Stage, controller, stage

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000}
GOOD, WRONG = "hub-token-good", "hub-token-wrong"


@pytest.fixture
async def cluster() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=[GOOD]) as running:
        running.add_repo("org/model", FILES)
        running.add_repo("org/private", FILES, private=True, readers=[GOOD])
        yield running


async def test_a_model_is_resolved_placed_and_ready_and_goes_with_its_model_cache(
    cluster: Stage, origin: Origin, tmp_path: Path
) -> None:
    await cluster.pool(maxFetching=2)
    await cluster.model("m", "hf://org/model", minReady=2)
    await cluster.live()
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Resolved", ("True", "Resolved"))

        async def planned() -> bool:
            return all([len(await cluster.wanted(node)) == 1 for node in cluster.nodes])

        await cluster.until("each node has an entry", planned)
        (entry,) = await cluster.wanted(cluster.nodes[0])
        key = ArtifactRef("hf://org/model").key
        assert (entry["key"], entry["namespace"], entry["model"], entry["bytes"]) == (key, cluster.tenant, "m", 1002)
        turns = [each for node in cluster.nodes for each in await cluster.wanted(node) if each["turn"]]
        assert len(turns) == 2

        first = [node for node in cluster.nodes if (await cluster.wanted(node))[0]["turn"]]
        await cluster.report(first[0], "Ready")
        await cluster.until_condition("m", "Progressing", ("True", "Queued"))
        assert await cluster.condition("m", "Ready") != ("True", "Ready")
        await cluster.report(first[1], "Ready")
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        (last,) = set(cluster.nodes) - set(first)

        async def has_turn() -> bool:
            return bool((await cluster.wanted(last))[0]["turn"])

        await cluster.until("the last node has its turn", has_turn)
        await cluster.report(last, "Failed", "CannotWrite", "cannot write")
        await cluster.until_condition("m", "Degraded", ("True", "CannotWrite"))
        status = await cluster.status("m")
        assert status["progress"] == "2/3"
        assert status["failedNodes"] == [{"node": last, "reason": "CannotWrite"}]
        await cluster.report(last, "Ready")
        await cluster.until_condition("m", "Progressing", ("False", "Complete"))
        status = await cluster.status("m")
        assert status["progress"] == "3/3"
        assert status["claimName"] == "m"
        assert status["command"] == "fetcher fetch hf://org/model --cache-dir /mnt/models"
        assert status["artifact"]["files"] == 2

        volume, claim = await cluster.volume("m"), await cluster.claim("m")
        assert volume is not None
        assert claim is not None
        assert volume["spec"]["local"]["path"] == f"/mnt/models/{key}"

        async def bound() -> bool:
            return str(((await cluster.claim("m")) or {}).get("status", {}).get("phase")) == "Bound"

        await cluster.until("the claim is bound", bound)
        daemon_set = await cluster.daemon_set()
        assert daemon_set is not None
        assert ("Normal", "Ready") in await cluster.events("m")

        await cluster.clear_models()

        async def gone() -> bool:
            return not any([await cluster.wanted(node) for node in cluster.nodes]) and await cluster.volume("m") is None

        await cluster.until("entries and volume are gone", gone)
        assert await cluster.claim("m") is None


async def test_a_wrong_token_is_told_and_a_corrected_secret_is_noticed(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    await cluster.pool()
    await cluster.secret("hub", WRONG)
    await cluster.model("m", "hf://org/private", auth={"secretKeyRef": {"name": "hub", "key": "token"}})
    log = tmp_path / "log"
    with controller(cluster, log, "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Degraded", ("True", "Unauthorized"))
        assert await cluster.condition("m", "Resolved") == ("False", "Unauthorized")
        assert ("Warning", "Unauthorized") in await cluster.events("m")
        await cluster.secret("hub", GOOD)
        await cluster.until_condition("m", "Resolved", ("True", "Resolved"))
    told = log.read_text() + str(await cluster.status("m")) + str((await cluster.api.list(EVENTS, cluster.tenant)).items)
    assert WRONG not in told
    assert GOOD not in told
