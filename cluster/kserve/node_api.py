"""An API server on which the NodeCache of a node is what its LocalModelNode means: the agent's code serves both alike.

Only what the agent asks for is translated: its NodeCache, the ModelCaches and Secrets of its entries, and its status.
Everything else goes to the API server as it is.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from cluster.client import Api, ApiAccess, Endpoint, Missing, endpoint_of
from cluster.client.api import Page
from cluster.client.endpoints import SECRETS
from cluster.kserve.agent import Artifact, Identity
from cluster.kserve.translating import model_document, node_document
from cluster.resources import MODEL_CACHE, NODE_CACHE, NodeCacheSpec, NodeCacheStatus, decoded
from cluster.secrets import SecretData

Document = dict[str, Any]
NODES, MODELS = endpoint_of(NODE_CACHE), endpoint_of(MODEL_CACHE)
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
        self._spec: NodeCacheSpec | None = None
        self._version = 0
        self._models: Mapping[tuple[str, str], tuple[Artifact, Identity]] = {}
        self._known = asyncio.Event()
        self._changed = asyncio.Event()

    def show(self, uid: str, spec: NodeCacheSpec | None, models: Mapping[tuple[str, str], tuple[Artifact, Identity]]) -> None:
        """Set what the NodeCache says, None while there is none, and by namespace and name what its entries mean."""
        self._models = models
        if (uid, spec) != (self._uid, self._spec) or not self._known.is_set():
            self._uid, self._spec = uid, spec
            self._version += 1
            self._known.set()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def get(self, endpoint: Endpoint, name: str, namespace: str = "") -> Document:
        if endpoint == NODES:
            if name == self._node and (document := self._document()) is not None:
                return document
            raise Missing(f"get {endpoint.named(name)}: there is no LocalModelNode", code=404)
        if endpoint == MODELS:
            artifact, identity = self._meant(endpoint, namespace, name)
            return model_document(artifact, identity, namespace)
        if endpoint == SECRETS:
            return await self._get_secret(name, namespace)
        return await super().get(endpoint, name, namespace)

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

    async def apply(
        self, endpoint: Endpoint, document: Mapping[str, Any], *, subresource: str = "", force: bool = True
    ) -> Document:
        if endpoint != NODES:
            return await super().apply(endpoint, document, subresource=subresource, force=force)
        await self._tell(decoded(NodeCacheStatus, document["status"]))
        return dict(document)

    def _document(self) -> Document | None:
        return node_document(self._node, self._uid, self._version, self._spec) if self._spec is not None else None

    def _meant(self, endpoint: Endpoint, namespace: str, name: str) -> tuple[Artifact, Identity]:
        if (namespace, name) not in self._models:
            raise Missing(f"get {endpoint.named(name, namespace)}: the LocalModelNode does not want it any more", code=404)
        return self._models[namespace, name]

    async def _get_secret(self, name: str, namespace: str) -> Document:
        artifact, identity = self._meant(SECRETS, namespace, name.rpartition(".")[2])
        found = await self._secret(artifact, identity)
        if found is None:
            raise Missing(f"get {SECRETS.named(name, namespace)}: the cache names no credential any more", code=404)
        data = {key: base64.b64encode(value).decode() for key, value in found.values.items()}
        return {"metadata": {"name": name, "namespace": namespace, "uid": "", "resourceVersion": found.version}, "data": data}
