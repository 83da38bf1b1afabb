"""Everything of the cluster that decides, as complete lists that stay current."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster.client import Api, ApiError, endpoint_of
from cluster.client.endpoints import CLAIMS, CRDS, DAEMON_SETS, JOBS, LEASES, NAMESPACES, NODES, PODS, VOLUMES
from cluster.client.watches import Watches, by_name, unreadable
from cluster.controller.liveness import Liveness
from cluster.controller.reading import (
    CONTROLLER,
    HYDRATION,
    MANAGED_BY,
    RETAINED,
    labels_of,
    read_artifact,
    read_cache,
    read_fetch,
    read_lease,
    read_owned,
    read_pod,
    read_target,
    read_told,
)
from cluster.controller.world import Name, Resolution, Unknown, World
from cluster.names import AGENT_LABEL
from cluster.resources import CACHE_ARTIFACT, CACHE_POOL, MODEL_CACHE, NODE_CACHE
from cluster.resources.crds import KINDS
from cluster.resources.kinds import GROUP

_OURS = f"{MANAGED_BY}={CONTROLLER}"
_HYDRATION = f"{HYDRATION}=true"


class Observer:
    """Watches what decides. `on_change` is called after each change, on the event loop."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        patience: float,
        *,
        on_change: Callable[[], None],
        on_problem: Callable[[ApiError], None],
    ) -> None:
        self.watches = Watches(api, on_change=on_change, on_problem=on_problem)
        self._api = api
        self._liveness = Liveness(patience)
        self._pools = self.watches.of(endpoint_of(CACHE_POOL), CACHE_POOL.read)
        self._models = self.watches.of(endpoint_of(MODEL_CACHE), MODEL_CACHE.read)
        self._caches = self.watches.of(endpoint_of(NODE_CACHE), read_cache)
        self._artifacts = self.watches.of(endpoint_of(CACHE_ARTIFACT), read_artifact)
        self._nodes = self.watches.of(NODES, labels_of)
        self._namespaces = self.watches.of(NAMESPACES, labels_of)
        self._pods = self.watches.of(PODS, read_pod)
        self._volumes = self.watches.of(VOLUMES, read_owned, labels=_OURS)
        self._claims = self.watches.of(CLAIMS, read_owned, labels=f"{_OURS},{HYDRATION}!=true")
        self._targets = self.watches.of(CLAIMS, read_target)
        self._fetches = self.watches.of(JOBS, read_fetch, labels=_OURS)
        self._told = self.watches.of(PODS, read_told, labels=_HYDRATION)
        self._retained = self.watches.of(VOLUMES, labels_of, labels=f"{RETAINED}=true")
        self._daemon_sets = self.watches.of(DAEMON_SETS, read_owned, labels=_OURS, namespace=namespace)
        # Renewals come all the time and change nothing; the periodic look notices who has stopped.
        self._leases = self.watches.of(
            LEASES, read_lease, on_change=self._renewed, namespace=namespace, labels=f"{AGENT_LABEL}=true"
        )
        self._on_change = on_change
        self._known_leases: set[Name] = set()
        self._crds = [self.watches.of(CRDS, _is_deleting, fields=f"metadata.name={kind.plural}.{GROUP}") for kind in KINDS]

    @property
    def is_installed(self) -> bool:
        """Whether all our kinds are there to stay: while one is being removed, its objects vanish and that means nothing."""
        return all(stays(each.objects.values()) for each in self._crds)

    async def is_still_installed(self) -> bool:
        """The same, asked now: a watch of a kind's objects can be ahead of the watch of the kind. Raises ApiError."""
        names = [f"{kind.plural}.{GROUP}" for kind in KINDS]
        pages = [await self._api.list(CRDS, fields=f"metadata.name={name}") for name in names]
        return all(stays([_is_deleting(each) for each in page.items]) for page in pages)

    def world(
        self,
        resolutions: Mapping[Name, Resolution],
        refusals: Mapping[tuple[str, str, str], str],
        yielded: frozenset[tuple[str, str]],
        *,
        now: float,
    ) -> World:
        """Return everything as it is at the monotonic time `now`."""
        return World(
            pools=by_name(self._pools),
            models=dict(self._models.objects),
            nodes=by_name(self._nodes),
            namespaces=by_name(self._namespaces),
            caches=by_name(self._caches),
            artifacts=by_name(self._artifacts),
            alive=self._liveness.look(self._leases.objects, now),
            leases=dict(self._leases.objects),
            pods={name: pod for name, pod in self._pods.objects.items() if pod.claims},
            claims=dict(self._claims.objects),
            volumes=by_name(self._volumes),
            targets=dict(self._targets.objects),
            fetches=dict(self._fetches.objects),
            told={name: told for name, told in self._told.objects.items() if told is not None},
            retained=frozenset(by_name(self._retained)),
            daemon_sets=by_name(self._daemon_sets),
            resolutions=resolutions,
            refusals=refusals,
            yielded=yielded,
            unknown=Unknown(
                pools=unreadable(self._pools),
                models=frozenset(self._models.unreadable),
                caches=unreadable(self._caches),
                artifacts=unreadable(self._artifacts),
                nodes=unreadable(self._nodes),
                namespaces=unreadable(self._namespaces),
                pods_of=frozenset(namespace for namespace, _ in self._pods.unreadable),
            ),
        )

    def _renewed(self) -> None:
        names = set(self._leases.objects)
        if names != self._known_leases:
            self._known_leases = names
            self._on_change()


def stays(found: Iterable[bool]) -> bool:
    """Whether a kind, looked for by its name, is there and not being deleted: whether each one found is."""
    return list(found) == [False]


def _is_deleting(document: Mapping[str, Any]) -> bool:
    return bool(document["metadata"].get("deletionTimestamp"))
