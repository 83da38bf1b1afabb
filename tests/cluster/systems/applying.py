"""The manifests of `k8s/integrations/*/model-cache` on a stage, and an agent as the kubelet of a node runs it."""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.client.endpoints import NAMESPACES, NODES
from tests.cluster.agent.cluster import QUICK
from tests.cluster.controller.playing import MODELS, POOLS, Document, Stage
from tests.k8s.manifests.rendering import K8S, render
from tests.lab.command import end, started_command


def manifests(system: str) -> dict[str, Document]:
    """The resources of a system's manifest, by kind and name."""
    found = render(K8S / "integrations" / system / "model-cache")
    return {f"{each['kind']} {each['metadata']['name']}": copy.deepcopy(each) for each in found}


async def apply_pool(stage: Stage, pool: Document, root: Path) -> None:
    """Apply a CachePool with `root`, under the stage's name. The stage's nodes and namespace become such as it selects."""
    spec = pool["spec"]
    for node in stage.nodes:
        await stage.api.merge(NODES, node, "", {"metadata": {"labels": spec["nodeSelector"]["matchLabels"]}})
    labels = spec["namespaceSelector"]["matchLabels"]
    await stage.api.merge(NAMESPACES, stage.tenant, "", {"metadata": {"labels": labels}})
    body = {**pool, "metadata": {**pool["metadata"], "name": stage.name}, "spec": {**spec, "root": str(root)}}
    await stage.api.create(POOLS, body)


async def apply_model(stage: Stage, model: Document) -> str:
    """Apply a ModelCache in the stage's namespace, for the stage's pool if it is for one. Return its name."""
    placement = model["spec"]["placement"]
    for each in placement.get("pools", ()):
        each["name"] = stage.name
    await stage.api.create(MODELS, {**model, "metadata": {**model["metadata"], "namespace": stage.tenant}})
    return str(model["metadata"]["name"])


@asynccontextmanager
async def agent(stage: Stage, node: str) -> AsyncIterator[None]:
    """Run the command of the pool's DaemonSet on a node, until the block ends."""
    found: list[Document] = []

    async def made() -> bool:
        found[:] = [each] if (each := await stage.daemon_set()) is not None else []
        return bool(found)

    await stage.until("the pool has a DaemonSet", made)
    (container,) = found[0]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["weightlift-agent"]
    process = started_command(
        (sys.executable, "-m", "cluster.agent.main", *container["args"]),
        *("--kubeconfig", stage.kubeconfig, *QUICK, "--metrics-port", "0", "--progress", "none"),
        env={"WEIGHTLIFT_NODE": node, "WEIGHTLIFT_NAMESPACE": stage.name},
    )
    try:
        yield
        assert process.poll() is None, process.communicate()
    finally:
        end(process)
