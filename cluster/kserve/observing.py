"""What decides about KServe's local models, as complete lists that stay current. All node groups are watched, and all nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cluster.client import Api, ApiError, Missing, endpoint_of
from cluster.client.endpoints import CLAIMS, CONFIG_MAPS, CRDS, JOBS, NODES, VOLUMES, Endpoint
from cluster.client.watches import Watches, by_name, unreadable
from cluster.kserve.kinds import (
    LOCAL_MODEL_CACHE,
    LOCAL_MODEL_NAMESPACE_CACHE,
    LOCAL_MODEL_NODE,
    LOCAL_MODEL_NODE_GROUP,
)
from cluster.kserve.names import CONFIG_MAP
from cluster.kserve.reading import read_claim, read_import, read_node, read_options, read_service, read_volume
from cluster.kserve.world import Importing, Options, Unreadable, World
from cluster.resources.moments import now

SERVICES = Endpoint("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", namespaced=True)
IMPORTS = "app.kubernetes.io/name=weightlift,app.kubernetes.io/component=import"
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
        importing: Importing | None = None,
        *,
        on_change: Callable[[], None],
        on_problem: Callable[[ApiError], None],
    ) -> None:
        self.watches = Watches(api, on_change=on_change, on_problem=on_problem)
        self._namespace = namespace
        self._config = self.watches.of(CONFIG_MAPS, read_options, namespace=namespace, fields=f"metadata.name={CONFIG_MAP}")
        self._caches = self.watches.of(endpoint_of(LOCAL_MODEL_CACHE), LOCAL_MODEL_CACHE.read)
        self._namespaced = self.watches.of(endpoint_of(LOCAL_MODEL_NAMESPACE_CACHE), LOCAL_MODEL_NAMESPACE_CACHE.read)
        self._groups = self.watches.of(endpoint_of(LOCAL_MODEL_NODE_GROUP), LOCAL_MODEL_NODE_GROUP.read)
        self._local_nodes = self.watches.of(endpoint_of(LOCAL_MODEL_NODE), LOCAL_MODEL_NODE.read)
        self._nodes = self.watches.of(NODES, read_node)
        self._services = [
            self.watches.of(each, partial(read_service, each.kind)) for each in (SERVICES, language) if each is not None
        ]
        self._volumes = self.watches.of(VOLUMES, read_volume)
        self._claims = self.watches.of(CLAIMS, read_claim)
        self._importing = importing
        self._imports = self.watches.of(JOBS, read_import, labels=IMPORTS) if importing is not None else None

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
            groups=by_name(self._groups),
            nodes=by_name(self._nodes),
            local_nodes=by_name(self._local_nodes),
            services=tuple(each for watched in self._services for each in watched.objects.values()),
            volumes=by_name(self._volumes),
            claims=dict(self._claims.objects),
            unreadable=Unreadable(
                frozenset(self._caches.unreadable) | frozenset(self._namespaced.unreadable),
                unreadable(self._groups),
                unreadable(self._nodes) | unreadable(self._local_nodes),
                frozenset(namespace for each in self._services for namespace, _ in each.unreadable),
            ),
            imports=dict(self._imports.objects) if self._imports is not None else {},
            importing=self._importing,
            moment=now(),
        )
