"""A cluster as the controller sees it: the test makes nodes, pools and models, and plays the agents of the nodes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from cluster.client import Api, ApiError, Missing, Unavailable, endpoint_of, of_kubeconfig
from cluster.client.endpoints import CLAIMS, DAEMON_SETS, EVENTS, LEASES, NAMESPACES, NODES, SECRETS, VOLUMES, Endpoint
from cluster.controller.reading import CONTROLLER, MANAGED_BY
from cluster.controller.volumes import volume_name
from cluster.resources import CACHE_ARTIFACT, CACHE_POOL, MODEL_CACHE, NODE_CACHE
from cluster.resources.artifact import content_of, name_of
from tests.cluster.api import cluster

POOLS, MODELS, CACHES = endpoint_of(CACHE_POOL), endpoint_of(MODEL_CACHE), endpoint_of(NODE_CACHE)
ARTIFACTS = endpoint_of(CACHE_ARTIFACT)
ROOT = "/mnt/models"
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000}
"""Of the models of the test's Hub."""
GOOD = "hub-token-good"
"""What its private model asks for."""

Document = dict[str, Any]


@dataclass(slots=True)
class Stage:
    """Objects of one test. `name` is the beginning of all names, and the namespace of controller and agents."""

    api: Api
    kubeconfig: Path
    name: str = field(default_factory=lambda: f"controller-{uuid4().hex[:8]}")

    @property
    def tenant(self) -> str:
        """A namespace whose ModelCaches may use the pool."""
        return f"{self.name}-tenant"

    @property
    def nodes(self) -> list[str]:
        return [f"{self.name}-n{number}" for number in (1, 2, 3)]

    async def make(self) -> None:
        for namespace in (self.name, self.tenant):
            await self.api.create(NAMESPACES, document(NAMESPACES, namespace, labels={"stage": self.name}))
        for node in self.nodes:
            await self.api.create(NODES, document(NODES, node, labels={"stage": self.name}))

    async def clear(self) -> None:
        """Remove everything; pools and models first, so that nothing is made anew."""
        await self.clear_models()
        await self._remove_own(POOLS)
        for endpoint in (NODES, CACHES):
            await self._remove_own(endpoint)
        for artifact in (await self.api.list(ARTIFACTS)).items:
            if artifact["spec"]["pool"] == self.name:
                await self._remove(ARTIFACTS, artifact)
        for volume in (await self.api.list(VOLUMES, labels=f"{MANAGED_BY}={CONTROLLER}")).items:
            if volume["spec"]["claimRef"]["namespace"] == self.tenant:
                await self._remove(VOLUMES, volume)
        for namespace in (self.name, self.tenant):
            await self._remove(NAMESPACES, await self.api.get(NAMESPACES, namespace))

    async def clear_models(self) -> None:
        for model in (await self.api.list(MODELS, self.tenant)).items:
            await self._remove(MODELS, model)

    async def pool(self, **spec: Any) -> None:
        wanted = {
            "root": ROOT,
            "nodeSelector": {"matchLabels": {"stage": self.name}},
            "namespaceSelector": {"matchLabels": {"stage": self.name}},
            **spec,
        }
        await self.api.create(POOLS, {**document(POOLS, self.name), "spec": wanted})

    async def model(self, name: str, uri: str, **spec: Any) -> None:
        wanted = {"source": {"uri": uri}, "placement": {"pools": [{"name": self.name}]}, **spec}
        await self.api.create(MODELS, {**document(MODELS, name, self.tenant), "spec": wanted})

    async def secret(self, name: str, token: str, *, key: str = "token") -> None:
        await self.api.apply(SECRETS, {**document(SECRETS, name, self.tenant), "stringData": {key: token}})

    async def live(self, *nodes: str) -> None:
        """Renew the Leases of the agents of `nodes`."""
        for node in nodes or self.nodes:
            lease = document(LEASES, f"weightlift-agent.{node}", self.name, labels={"weightlift.dev/agent": "true"})
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            await self.api.apply(LEASES, {**lease, "spec": {"holderIdentity": node, "renewTime": moment}})

    async def report(self, node: str, phase: str, reason: str | None = None, message: str | None = None) -> None:
        """Write the status of a node as its agent does, the same for all artifacts that it may fetch."""
        spec = (await self.api.get(CACHES, node))["spec"]
        said = {"reason": reason, "message": message} if reason else {}
        artifacts = {}
        for key, entry in spec.get("artifacts", {}).items():
            what = (await self.api.get(ARTIFACTS, name_of(key, entry["mark"])))["spec"]
            content = content_of(what.get("revision"), what["listingDigest"])
            ready = {"content": content} if phase == "Ready" else {}
            artifacts[key] = {"phase": phase, **said, **ready} if entry.get("turn") else {"phase": "Queued", "reason": "Turn"}
        status = {"capacity": 10**12, "used": 7, "artifacts": artifacts}
        await self.api.apply(CACHES, {**document(CACHES, node), "status": status}, subresource="status")

    async def wanted(self, node: str) -> dict[str, Document]:
        """The entries of a node by key; none without a NodeCache."""
        found = await self.find(CACHES, node)
        return dict(found["spec"].get("artifacts", {})) if found is not None else {}

    async def find(self, endpoint: Endpoint, name: str, namespace: str = "") -> Document | None:
        try:
            return await self.api.get(endpoint, name, namespace)
        except Missing:
            return None

    async def status(self, name: str) -> Document:
        return dict((await self.api.get(MODELS, name, self.tenant)).get("status") or {})

    async def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Status and reason of a ModelCache's condition."""
        told = {each["type"]: each for each in (await self.status(name)).get("conditions", [])}
        return (told[kind]["status"], told[kind]["reason"]) if kind in told else ("", "")

    async def until(self, what: str, true: Callable[[], Awaitable[bool]], *, within: float = 60.0) -> None:
        deadline = time.monotonic() + within
        while not await _answered(true):
            if time.monotonic() > deadline:
                models = [each.get("status") for each in (await self.api.list(MODELS, self.tenant)).items]
                raise AssertionError(f"timed out after {within:g} s; expected: {what}; ModelCaches: {models}")
            await asyncio.sleep(0.1)

    async def until_condition(self, name: str, kind: str, wanted: tuple[str, str], *, within: float = 60.0) -> None:
        async def true() -> bool:
            return await self.condition(name, kind) == wanted

        await self.until(f"{name} {kind} is {wanted}", true, within=within)

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Type and reason of the Events of a ModelCache."""
        found = (await self.api.list(EVENTS, self.tenant)).items
        return [(each["type"], each["reason"]) for each in found if each["involvedObject"]["name"] == name]

    async def until_told(self, name: str, kind: str, reason: str) -> None:
        """Wait for an Event of a ModelCache, which comes after its status."""

        async def told() -> bool:
            return (kind, reason) in await self.events(name)

        await self.until(f"{kind} {reason} is told", told)

    async def volume(self, name: str) -> Document | None:
        return await self.find(VOLUMES, volume_name((self.tenant, name)))

    async def claim(self, name: str) -> Document | None:
        return await self.find(CLAIMS, name, self.tenant)

    async def daemon_set(self) -> Document | None:
        return await self.find(DAEMON_SETS, f"weightlift-agent-{self.name}", self.name)

    async def _remove_own(self, endpoint: Endpoint) -> None:
        for each in (await self.api.list(endpoint)).items:
            if each["metadata"]["name"].startswith(self.name):
                await self._remove(endpoint, each)

    async def _remove(self, endpoint: Endpoint, found: Document) -> None:
        metadata = found["metadata"]
        with suppress(ApiError):
            await self.api.delete(endpoint, metadata["name"], metadata.get("namespace", ""), uid=metadata["uid"])


def document(endpoint: Endpoint, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Document:
    metadata: Document = {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        **({"labels": labels} if labels else {}),
    }
    return {"apiVersion": endpoint.api_version, "kind": endpoint.kind, "metadata": metadata}


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Provide an empty stage on the throw-away cluster of the tests; everything on it is removed at the end."""
    path = Path(cluster().kubeconfig)
    async with Api(of_kubeconfig(path), manager="test") as api:
        made = Stage(api, path)
        await made.make()
        try:
            yield made
        finally:
            await made.clear()


async def _answered(true: Callable[[], Awaitable[bool]]) -> bool:
    """Whether `true` holds; an API server that has just got our kinds may answer 503 for a moment."""
    try:
        return await true()
    except Unavailable:
        return False


@contextmanager
def controller(stage: Stage, log: Path, *options: str, bound: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a controller as a process; its lines go to `log`. `bound`: it wants agents to be bound to their nodes."""
    words = [
        sys.executable, "-m", "cluster.controller.main", "--kubeconfig", str(stage.kubeconfig), "--namespace", stage.name,
        "--image", "example.com/weightlift:0.1.0", "--allow-loopback",
        *(() if bound else ("--allow-unbound-agents",)), "--status-interval", "200ms", *options,
    ]  # fmt: skip
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        yield process
    finally:
        process.terminate()  # which gives its Lease back, so that another one need not wait until that is over
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)
