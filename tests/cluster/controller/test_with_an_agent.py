"""A controller and an agent, a real API server and a real Hub: what they never say, and what a pod's own fetch finds."""

from __future__ import annotations

import base64
import json
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from cluster.client.endpoints import CLAIMS, EVENTS, LEASES, VOLUMES
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Node, Play
from tests.cluster.api import cluster as kubernetes
from tests.cluster.controller.playing import ARTIFACTS, CACHES, MODELS, POOLS, Stage, controller
from tests.cluster.controller.test_health import ENDPOINT, address
from tests.lab.asking import asked
from tests.lab.command import run_fetcher

MiB = 1024 * 1024
TOKEN = "hf_read-by/this+agent"
FILES = {"config.json": b"{}", "model.safetensors": bytes(3 * MiB)}
AUTH = {"secretKeyRef": {"name": "hub", "key": "token"}}


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Its CDN gets addresses with signatures, and no token."""
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        running.add_repo("org/private", FILES, private=True, readers=[TOKEN])
        yield running


@pytest.fixture
def node(cluster: Stage, origin: Origin) -> Iterator[Node]:
    """The first node, with an agent; the others have none."""
    with tempfile.TemporaryDirectory(prefix="weightlift-", dir="/var/tmp") as name:
        directory = Path(name)
        words = ("--hub-endpoint", origin.endpoint, "--allow-loopback", "--namespace", cluster.name)
        made = Node(cluster.nodes[0], directory / "root", Play(kubernetes(), directory, {}, words, namespace=cluster.name))
        made.root.mkdir()
        made.start()
        yield made
        made.kill()


async def test_neither_the_token_nor_the_signature_of_an_address_is_in_any_object_log_or_metric(
    cluster: Stage, origin: Origin, node: Node, tmp_path: Path
) -> None:
    """Neither after a fetch that failed, whose messages quote what was asked, nor after one that did not."""
    await cluster.pool(root=str(node.root), allowRootFilesystem=True, minFree="0")
    await cluster.secret("hub", TOKEN)
    origin.faults.add(Fault(Status(403, body=b"denied"), origin="cdn"))
    log = tmp_path / "log"
    with controller(cluster, log, "--hub-endpoint", origin.endpoint, *ENDPOINT):
        await cluster.model("m", "hf://org/private", auth=AUTH)
        await cluster.until_condition("m", "Degraded", ("True", "Unauthorized"))
        seen = await everything(cluster)
        origin.faults.clear()
        await cluster.secret("hub", TOKEN)
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        seen += await everything(cluster)
        seen += asked(f"{node.address}/metrics").text + asked(f"{address(log)}/metrics").text
        _, told = node.stop()
        seen += told + log.read_text()
    signatures = {each.query["Signature"] for each in origin.requests if each.origin == "cdn"}
    tokens = {each.headers["authorization"] for each in origin.requests if "authorization" in each.headers}
    assert signatures
    assert tokens == {f"Bearer {TOKEN}"}
    secrets = [TOKEN, base64.b64encode(TOKEN.encode()).decode(), quote(TOKEN, safe=""), "Signature="]
    secrets += [form for each in signatures for form in (each, quote(each, safe=""), unquote(each))]
    assert [each for each in secrets if each in seen] == []


async def everything(cluster: Stage) -> str:
    """All that the API server shows of the test, each kind of it, but the Secret itself."""
    shown = ""
    for endpoint in (MODELS, CACHES, ARTIFACTS, POOLS, VOLUMES, CLAIMS, EVENTS, LEASES):
        found = [json.dumps(each) for each in (await cluster.api.list(endpoint)).items]
        own = [each for each in found if cluster.name in each]
        assert own, f"there are {endpoint.plural} to look at"
        shown += "".join(own)
    return shown


async def test_the_command_of_a_status_is_a_hit_after_the_fetch_of_an_agent(
    cluster: Stage, origin: Origin, node: Node, tmp_path: Path
) -> None:
    await cluster.pool(root=str(node.root), allowRootFilesystem=True, minFree="0")
    with controller(cluster, tmp_path / "log", "--hub-endpoint", origin.endpoint):
        await cluster.model("m", "hf://org/model", source={"uri": "hf://org/model", "revision": "main", "include": ["*.json"]})
        await cluster.until_condition("m", "Ready", ("True", "Ready"))
        status = await cluster.status("m")
    origin.clear_requests()

    program, *words = shlex.split(status["command"])
    done = run_fetcher(*words, env={"HF_ENDPOINT": origin.endpoint})

    assert program == "fetcher"

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == node.root / status["artifact"]["key"]
    assert not origin.requests
