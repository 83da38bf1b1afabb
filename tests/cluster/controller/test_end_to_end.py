"""The controller as a process against a real API server. The test plays the agents; the source is a real Hub on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cluster.client.endpoints import CLAIMS, EVENTS, LEASES, NODES
from cluster.names import lease_of
from cluster.resources.artifact import name_of
from fetcher.artifact import ArtifactRef
from fetcher.testing.origin import Origin
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.playing import ARTIFACTS, CACHES, FILES, GOOD, MODELS, POOLS, Stage, controller, document

WRONG = "hub-token-wrong"


async def test_a_model_is_resolved_placed_and_ready_and_goes_with_its_model_cache(
    cluster: Stage, origin: Origin, tmp_path: Path
) -> None:
    await cluster.pool(maxFetching=2, nodeLabels=True)
    await cluster.model("m", "hf://org/model", minReady=2)
    await cluster.live()
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Resolved", ("True", "Resolved"))

        async def planned() -> bool:
            return all([len(await cluster.wanted(node)) == 1 for node in cluster.nodes])

        await cluster.until("each node has an entry", planned)
        ((key, entry),) = (await cluster.wanted(cluster.nodes[0])).items()
        artifact = (await cluster.api.get(ARTIFACTS, name_of(key, entry["mark"])))["spec"]
        assert key == ArtifactRef("hf://org/model").key
        assert (artifact["namespace"], artifact["model"], artifact["bytes"]) == (cluster.tenant, "m", 1002)
        turns = [each for node in cluster.nodes for each in (await cluster.wanted(node)).values() if "turn" in each]
        assert len(turns) == 2

        first = [node for node in cluster.nodes if "turn" in (await cluster.wanted(node))[key]]
        await cluster.report(first[0], "Ready")
        await cluster.until_condition("m", "Progressing", ("True", "Queued"))
        assert await cluster.condition("m", "Ready") != ("True", "Ready")
        await cluster.report(first[1], "Ready")
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        (last,) = set(cluster.nodes) - set(first)

        async def has_turn() -> bool:
            return "turn" in (await cluster.wanted(last))[key]

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
        await cluster.until_told("m", "Normal", "Ready")
        label = f"ready.weightlift.dev/{key}=true"

        async def labelled() -> list[str]:
            return sorted(each["metadata"]["name"] for each in (await cluster.api.list(NODES, labels=label)).items)

        async def all_labelled() -> bool:
            return await labelled() == cluster.nodes

        await cluster.until("nodes with a copy have its label", all_labelled)

        await cluster.clear_models()

        async def gone() -> bool:
            volume, wanted = await cluster.volume("m"), [await cluster.wanted(node) for node in cluster.nodes]
            return volume is None and not any(wanted) and await labelled() == []

        await cluster.until("entries, labels and volume are gone", gone)
        assert await cluster.claim("m") is None


async def test_a_wrong_token_is_told_and_a_corrected_secret_is_noticed(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    await cluster.pool()
    await cluster.secret("hub", WRONG)
    await cluster.model("m", "hf://org/private", auth={"secretKeyRef": {"name": "hub", "key": "token"}})
    log = tmp_path / "log"
    with controller(cluster, log, "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Degraded", ("True", "Unauthorized"))
        assert await cluster.condition("m", "Resolved") == ("False", "Unauthorized")
        await cluster.until_told("m", "Warning", "Unauthorized")
        await cluster.secret("hub", GOOD)
        await cluster.until_condition("m", "Resolved", ("True", "Resolved"))
    told = log.read_text() + str(await cluster.status("m")) + str((await cluster.api.list(EVENTS, cluster.tenant)).items)
    assert WRONG not in told
    assert GOOD not in told


async def test_a_model_that_follows_its_branch_is_replaced_by_what_the_branch_has_now(cluster: Stage, tmp_path: Path) -> None:
    with Origin() as origin:
        repository = origin.add_repo("org/model", FILES)
        await cluster.pool()
        await cluster.model("m", "hf://org/model", refreshPolicy="OnChange", refreshInterval="1s")
        with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):

            async def has(commit: str) -> bool:
                wanted = [await cluster.wanted(node) for node in cluster.nodes]
                names = [name_of(key, each["mark"]) for entries in wanted for key, each in entries.items()]
                revisions = [(await cluster.api.get(ARTIFACTS, name))["spec"]["revision"] for name in names]
                return revisions == [commit] * len(cluster.nodes)

            await cluster.until("each node shall have the first", lambda: has(repository.commit))
            newer = origin.update_repo(repository, {**FILES, "config.json": b"{ }"})
            await cluster.until("each node shall have the second", lambda: has(newer))
            assert (await cluster.status("m"))["artifact"]["key"] == ArtifactRef("hf://org/model").key


async def test_the_lease_of_a_node_that_is_gone_is_removed_once_it_is_silent(
    cluster: Stage, origin: Origin, tmp_path: Path
) -> None:
    there, gone = cluster.nodes[0], f"{cluster.name}-gone"
    await cluster.live(there, gone)
    await cluster.pool()
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint, "--agent-patience", "1s"):

        async def has_looked() -> bool:
            return await cluster.find(CACHES, there) is not None

        async def is_removed() -> bool:
            return await cluster.find(LEASES, lease_of(gone), cluster.name) is None

        await cluster.until("the controller has looked", has_looked)
        await asyncio.sleep(1.0)
        await cluster.model("m", "hf://org/model")  # which makes it look again
        await cluster.until("the Lease is removed", is_removed)
        assert await cluster.find(LEASES, lease_of(there), cluster.name) is not None


async def test_people_wait_for_a_model_and_see_its_copies(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    commit = origin.add_repo("org/shown", {"config.json": b"{}", "model.safetensors": b"w" * 12_798}).commit
    await cluster.pool()
    await cluster.model("m", "hf://org/shown")
    await cluster.live()
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):

        async def planned() -> bool:
            return all([len(await cluster.wanted(node)) == 1 for node in cluster.nodes])

        await cluster.until("each node has an entry", planned)
        for node in cluster.nodes[:2]:
            await cluster.report(node, "Ready")
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        kubectl = kubernetes()
        waited = kubectl.run(
            "-n", cluster.tenant, "wait", "--for=condition=Ready", "--timeout=20s", "modelcaches.weightlift.dev/m"
        )
        assert waited.returncode == 0, waited.stderr

        async def shown() -> bool:
            shows = kubectl.run("-n", cluster.tenant, "get", "modelcaches.weightlift.dev", "m").stdout
            titles, row = (line.split() for line in shows.splitlines())
            assert titles == ["NAME", "READY", "SIZE", "REVISION", "REASON", "AGE"]
            return row[:5] == ["m", "2/3", "12.5Ki", commit[:7], "Ready"]

        await cluster.until("kubectl get shows the copies", shown)
        artifact = (await cluster.status("m"))["artifact"]
        assert (artifact["bytes"], artifact["revision"]) == (12_800, commit)  # for programs, in full


async def test_a_claim_of_a_user_with_the_models_name_is_never_touched(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    theirs = await cluster.api.create(CLAIMS, {**document(CLAIMS, "m", cluster.tenant), "spec": wanted})
    await cluster.pool()
    await cluster.model("m", "hf://org/model")
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Degraded", ("True", "ClaimRefused"))
        await cluster.clear_models()

        async def gone() -> bool:
            return await cluster.volume("m") is None

        await cluster.until("our volume is gone", gone)
    assert ((await cluster.claim("m")) or {})["metadata"]["uid"] == theirs["metadata"]["uid"]


async def test_a_deleted_pool_leaves_nothing_and_hinders_nobody(cluster: Stage, origin: Origin, tmp_path: Path) -> None:
    await cluster.pool()
    await cluster.model("m", "hf://org/model")
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await cluster.until_condition("m", "Resolved", ("True", "Resolved"))

        async def made() -> bool:
            return await cluster.claim("m") is not None and await cluster.daemon_set() is not None

        await cluster.until("claim and agents are there", made)
        found = await cluster.api.get(POOLS, cluster.name)
        await cluster.api.delete(POOLS, cluster.name, uid=found["metadata"]["uid"])
        await cluster.until_condition("m", "Degraded", ("True", "PoolMissing"))

        async def gone() -> bool:
            caches = [await cluster.find(CACHES, node) for node in cluster.nodes]
            return not any([*caches, await cluster.daemon_set(), await cluster.volume("m"), await cluster.claim("m")])

        await cluster.until("node caches, agents and volume are gone", gone)
        await cluster.clear_models()
        assert await cluster.find(MODELS, "m", cluster.tenant) is None
