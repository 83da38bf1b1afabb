"""Carries out a plan of the manager: each write is of one object, and fails for it alone.

What another writer changed meanwhile is not overwritten: the watch brings it, and the next plan decides anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cluster.client import Api, ApiError, Conflict, Missing, endpoint_of
from cluster.client.endpoints import CLAIMS, JOBS, VOLUMES
from cluster.client.errors import NotLeading
from cluster.kserve.importing import Imports
from cluster.kserve.kinds import LOCAL_MODEL_NODE
from cluster.kserve.local_nodes import NodeWrite
from cluster.kserve.manager import Plan
from cluster.kserve.volumes import VolumeWrites
from cluster.kserve.world import Cache, finalizer_of, kind_of
from cluster.resources import Metadata, encoded

LOCAL_NODES = endpoint_of(LOCAL_MODEL_NODE)


class Writer:
    """Writes plans. `on_note` gets a subject and what was done; `on_problem` what the API server refuses."""

    def __init__(self, api: Api, *, on_note: Callable[[str, str], None], on_problem: Callable[[ApiError], None]) -> None:
        self._api = api
        self._on_note = on_note
        self._on_problem = on_problem
        self.refused = False
        """Whether something of the last plan could not be written, so that it is to be tried again."""

    async def write(self, plan: Plan) -> None:
        """Write a plan in its order. Raises NotLeading; any other refusal is reported."""
        self.refused = False
        for cache in plan.finalize:
            await self._finalizers(cache, (*cache.metadata.finalizers, finalizer_of(cache)))
        for each in plan.nodes:
            await self._node(each)
        for node in plan.gone:
            name, uid = node.metadata.name, node.metadata.uid
            await self._tried(
                f"localmodelnodes {name}", "removed: its node is gone", self._api.delete(LOCAL_NODES, name, uid=uid)
            )
        await self._volumes(plan.volumes)
        await self._imports(plan.imports)
        for cache, patch in plan.statuses:
            await self._merge(cache, patch, None, subresource="status")
        for cache in plan.release:
            own = finalizer_of(cache)
            await self._finalizers(cache, tuple(each for each in cache.metadata.finalizers if each != own))

    async def _finalizers(self, cache: Cache, finalizers: tuple[str, ...]) -> None:
        done = "nothing is left of it" if finalizer_of(cache) not in finalizers else None
        await self._merge(cache, {"metadata": {"finalizers": list(finalizers)}}, done)

    async def _merge(self, cache: Cache, patch: dict[str, Any], done: str | None, *, subresource: str = "") -> None:
        """Merge a patch into a cache of the very version that the plan saw."""
        endpoint, metadata = endpoint_of(kind_of(cache)), cache.metadata
        body = {**patch, "metadata": {**patch.get("metadata", {}), **_version(metadata)}}
        write = self._api.merge(endpoint, metadata.name, metadata.namespace, body, subresource=subresource)
        await self._tried(endpoint.named(metadata.name, metadata.namespace), done, write)

    async def _node(self, each: NodeWrite) -> None:
        models = encoded(each.models)
        if each.before is None:
            document = {"apiVersion": LOCAL_NODES.api_version, "kind": LOCAL_NODES.kind, "metadata": {"name": each.name}}
            write = self._api.create(LOCAL_NODES, {**document, "spec": {"localModels": models}})
        else:
            body = {"metadata": _version(each.before.metadata), "spec": {"localModels": models}}
            write = self._api.merge(LOCAL_NODES, each.name, "", body)
        await self._tried(f"localmodelnodes {each.name}", f"shall have {len(models)} models", write)

    async def _volumes(self, writes: VolumeWrites) -> None:
        for document in writes.create_volumes:
            await self._tried(f"persistentvolumes {document['metadata']['name']}", "made", self._api.create(VOLUMES, document))
        for document in writes.create_claims:
            place = document["metadata"]
            what = f"persistentvolumeclaims {place['namespace']}/{place['name']}"
            await self._tried(what, "made", self._api.create(CLAIMS, document))
        for each in writes.free:
            body = {"metadata": {"uid": each.uid}, "spec": {"claimRef": None}}
            await self._tried(
                f"persistentvolumes {each.name}", "freed of its last claim", self._api.merge(VOLUMES, each.name, "", body)
            )
        for each in writes.remove_claims:
            what = f"persistentvolumeclaims {each.namespace}/{each.name}"
            await self._tried(what, "removed", self._api.delete(CLAIMS, each.name, each.namespace, uid=each.uid))
        for each in writes.remove_volumes:
            await self._tried(f"persistentvolumes {each.name}", "removed", self._api.delete(VOLUMES, each.name, uid=each.uid))

    async def _imports(self, imports: Imports) -> None:
        for document in imports.create:
            place = document["metadata"]
            await self._tried(f"jobs {place['namespace']}/{place['name']}", "made", self._api.create(JOBS, document))
        for each in imports.remove:
            removal = self._api.delete(JOBS, each.name, each.namespace, uid=each.uid)
            await self._tried(f"jobs {each.namespace}/{each.name}", "removed", removal)

    async def _tried(self, what: str, done: str | None, write: Awaitable[Any]) -> None:
        try:
            await write
        except NotLeading:
            raise
        except (Conflict, Missing) as error:
            # Somebody was faster: the watch tells. A namespace that is missing is told by nothing, so it is tried again.
            self.refused = True
            if isinstance(error, Missing):
                self._on_problem(error)
        except ApiError as error:
            self.refused = True
            self._on_problem(error)
        else:
            if done is not None:
                self._on_note(what, done)


def _version(metadata: Metadata) -> dict[str, str]:
    return {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
