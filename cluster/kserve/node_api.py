"""An API server on which the NodeCache of a node is what its LocalModelNode means: the agent's code serves both alike.

Only what the agent asks for is translated: its NodeCache, what its entries are, their ModelCaches and Secrets, and its status.
Everything else goes to the API server as it is.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from cluster.client import Api, ApiAccess, Conflict, Endpoint, Missing, endpoint_of
from cluster.client.api import Page
from cluster.client.endpoints import SECRETS
from cluster.kserve.agent import Artifact, Identity
from cluster.kserve.translating import Meant, artifact_document, model_document, node_document
from cluster.resources import CACHE_ARTIFACT, MODEL_CACHE, NODE_CACHE, NodeCacheStatus, decoded, patched
from cluster.secrets import SecretData

Document = dict[str, Any]
NODES, MODELS, ARTIFACTS = endpoint_of(NODE_CACHE), endpoint_of(MODEL_CACHE), endpoint_of(CACHE_ARTIFACT)
_LONGEST = 60.0


class LocalModelApi(Api):
    """The API server with a NodeCache that is made here. `tell` is given each status of it, `secret` finds credentials."""

    def __init__(
        self,
        access: ApiAccess,
        *,
        manager: str,
        node: str,
        tell: Callable[[NodeCacheStatus], Awaitable[None]],
        secret: Callable[[Artifact, Identity], Awaitable[SecretData | None]],
    ) -> None:
        super().__init__(access, manager=manager)
        self._node = node
        self._tell = tell
        self._secret = secret
        self._uid = ""
        self._meant: Meant | None = None
        self._status: Document = {}
        self._version = 0
        self._models: Mapping[tuple[str, str], tuple[Artifact, Identity]] = {}
        self._known = asyncio.Event()
        self._changed = asyncio.Event()

    def show(self, uid: str, meant: Meant | None, models: Mapping[tuple[str, str], tuple[Artifact, Identity]]) -> None:
        """Set what the NodeCache says, None while there is none, and by namespace and name what its entries mean."""
        self._models = models
        if (uid, meant) != (self._uid, self._meant) or not self._known.is_set():
            self._status = self._status if uid == self._uid else {}
            self._uid, self._meant = uid, meant
            self._version += 1
            self._known.set()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "", *, cached: bool = False) -> Document:
        if endpoint == NODES:
            if name == self._node and (document := self._document()) is not None:
                return document
            raise Missing(f"get {endpoint.named(name)}: there is no LocalModelNode", code=404)
        if endpoint == MODELS:
            artifact, identity = self._asked(endpoint, namespace, name)
            return model_document(artifact, identity, namespace)
        if endpoint == ARTIFACTS:
            if self._meant is None or name not in self._meant.artifacts:
                raise Missing(f"get {endpoint.named(name)}: the LocalModelNode does not want it any more", code=404)
            return artifact_document(name, self._meant.artifacts[name])
        if endpoint == SECRETS:
            return await self._get_secret(name, namespace)
        return await super().get(endpoint, name, namespace, cached=cached)

    async def pages(
        self, endpoint: Endpoint, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Page]:
        if endpoint != NODES:
            async for page in super().pages(endpoint, namespace, labels=labels, fields=fields):
                yield page
            return
        await self._known.wait()
        document = self._document()
        yield Page([document] if document is not None else [], str(self._version))

    async def watch(
        self, endpoint: Endpoint, namespace: str = "", *, since: str, seconds: int, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[tuple[str, Document]]:
        if endpoint != NODES:
            async for change in super().watch(endpoint, namespace, since=since, seconds=seconds, labels=labels, fields=fields):
                yield change
            return
        seen, until = int(since), time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            changed = self._changed
            if self._version != seen:
                seen = self._version
                if (document := self._document()) is not None:  # a missing one says nothing
                    yield "MODIFIED", document
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, _LONGEST))

    async def merge(
        self, endpoint: Endpoint, name: str, namespace: str, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> Document:
        if endpoint != NODES:
            return await super().merge(endpoint, name, namespace, patch, subresource=subresource)
        if patch["metadata"] != {"resourceVersion": str(self._version), "uid": self._uid}:
            raise Conflict(f"patch {endpoint.named(name)}: the LocalModelNode has changed meanwhile", code=409)
        status = patched(self._status, patch["status"])
        await self._tell(decoded(NodeCacheStatus, status))
        self._status = status
        return await self.get(endpoint, name)

    def _document(self) -> Document | None:
        if self._meant is None:
            return None
        return node_document(self._node, self._uid, self._version, self._meant.spec, self._status)

    def _asked(self, endpoint: Endpoint, namespace: str, name: str) -> tuple[Artifact, Identity]:
        if (namespace, name) not in self._models:
            raise Missing(f"get {endpoint.named(name, namespace)}: the LocalModelNode does not want it any more", code=404)
        return self._models[namespace, name]

    async def _get_secret(self, name: str, namespace: str) -> Document:
        artifact, identity = self._asked(SECRETS, namespace, name.rpartition(".")[2])
        found = await self._secret(artifact, identity)
        if found is None:
            raise Missing(f"get {SECRETS.named(name, namespace)}: the cache names no credential any more", code=404)
        data = {key: base64.b64encode(value).decode() for key, value in found.values.items()}
        return {"metadata": {"name": name, "namespace": namespace, "uid": "", "resourceVersion": found.version}, "data": data}
