"""What decides about KServe's local models, as complete lists that stay current. All node groups are watched, and all nodes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

from cluster.client import Api, ApiError, Missing, Watched, endpoint_of
from cluster.client.endpoints import CLAIMS, CONFIG_MAPS, NODES, VOLUMES, Endpoint
from cluster.kserve.kinds import (
    LOCAL_MODEL_CACHE,
    LOCAL_MODEL_NAMESPACE_CACHE,
    LOCAL_MODEL_NODE,
    LOCAL_MODEL_NODE_GROUP,
)
from cluster.kserve.names import CONFIG_MAP
from cluster.kserve.reading import read_claim, read_node, read_options, read_service, read_volume
from cluster.kserve.world import Options, Unreadable, World

SERVICES = Endpoint("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", namespaced=True)
CRDS = Endpoint("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)
_LANGUAGE = "llminferenceservices"


async def language_services(api: Api) -> Endpoint | None:
    """Return where KServe's services for language models are, None if it is installed without them. Raises ApiError."""
    try:
        crd = await api.get(CRDS, f"{_LANGUAGE}.serving.kserve.io")
    except Missing:
        return None
    version = next(each["name"] for each in crd["spec"]["versions"] if each.get("storage"))
    return Endpoint(f"serving.kserve.io/{version}", "LLMInferenceService", _LANGUAGE, namespaced=True)


class Observer:
    """Watches what decides. `namespace`: KServe's own. `language`: of its services for language models.

    `on_change` is called after each change, on the event loop.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        language: Endpoint | None,
        *,
        on_change: Callable[[], None],
        on_problem: Callable[[ApiError], None],
    ) -> None:
        def watched(endpoint: Endpoint, read: Callable[[Mapping[str, Any]], Any], **where: Any) -> Watched[Any]:
            one = Watched(api, endpoint, read, on_change=on_change, on_problem=on_problem, **where)
            self._all.append(one)
            return one

        self._all: list[Watched[Any]] = []
        self._namespace = namespace
        self._config = watched(CONFIG_MAPS, read_options, namespace=namespace, fields=f"metadata.name={CONFIG_MAP}")
        self._caches = watched(endpoint_of(LOCAL_MODEL_CACHE), LOCAL_MODEL_CACHE.read)
        self._namespaced = watched(endpoint_of(LOCAL_MODEL_NAMESPACE_CACHE), LOCAL_MODEL_NAMESPACE_CACHE.read)
        self._groups = watched(endpoint_of(LOCAL_MODEL_NODE_GROUP), LOCAL_MODEL_NODE_GROUP.read)
        self._local_nodes = watched(endpoint_of(LOCAL_MODEL_NODE), LOCAL_MODEL_NODE.read)
        self._nodes = watched(NODES, read_node)
        self._services = [watched(each, partial(read_service, each.kind)) for each in (SERVICES, language) if each is not None]
        self._volumes = watched(VOLUMES, read_volume)
        self._claims = watched(CLAIMS, read_claim)

    def runs(self) -> Iterable[Coroutine[Any, Any, None]]:
        """The watches, which never end by themselves."""
        return [each.run() for each in self._all]

    async def synced(self) -> None:
        """Wait until every list is complete."""
        for each in self._all:
            await each.synced.wait()

    @property
    def problem(self) -> str | None:
        """Why nothing can be decided: KServe's configuration is missing or cannot be read. None if it can."""
        name = (self._namespace, CONFIG_MAP)
        if name in self._config.unreadable:
            return f"ConfigMap {self._namespace}/{CONFIG_MAP}: {self._config.unreadable[name]}"
        return (
            None
            if name in self._config.objects
            else f"ConfigMap {self._namespace}/{CONFIG_MAP} is missing; install KServe first"
        )

    def world(self) -> World:
        """Return everything as it is. Only without a `problem`."""
        options: Options = self._config.objects[self._namespace, CONFIG_MAP]
        return World(
            options,
            caches={**self._caches.objects, **self._namespaced.objects},
            groups=_by_name(self._groups),
            nodes=_by_name(self._nodes),
            local_nodes=_by_name(self._local_nodes),
            services=tuple(each for watched in self._services for each in watched.objects.values()),
            volumes=_by_name(self._volumes),
            claims=dict(self._claims.objects),
            unreadable=Unreadable(
                frozenset(self._caches.unreadable) | frozenset(self._namespaced.unreadable),
                _names(self._groups),
                _names(self._nodes) | _names(self._local_nodes),
                frozenset(namespace for each in self._services for namespace, _ in each.unreadable),
            ),
        )


def _by_name(watched: Watched[Any]) -> dict[str, Any]:
    return {name: each for (_, name), each in watched.objects.items()}


def _names(watched: Watched[Any]) -> frozenset[str]:
    return frozenset(name for _, name in watched.unreadable)
