"""Which services use a cache, and by which node group. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cluster.kserve.names import GROUP_ANNOTATION, MODEL_LABEL, NAMESPACE_LABEL
from cluster.kserve.world import Cache, Id, Service, id_of


def users_of(cache: Cache, services: Iterable[Service]) -> list[Service]:
    """Return the services that are labelled for `cache`, or have an adapter in it, in order.

    A cache of a namespace is for services of its namespace.
    """
    wanted = id_of(cache.metadata)
    found = (
        each
        for each in services
        if (_labelled(each) == wanted or wanted in each.adapters) and wanted[0] in ("", each.namespace)
    )
    return sorted(found, key=lambda each: (each.namespace, each.name))


def _labelled(service: Service) -> Id:
    return service.labels.get(NAMESPACE_LABEL, ""), service.labels.get(MODEL_LABEL, "")


def group_of(service: Service, cache: Cache) -> str | None:
    """Return the node group on which `service` uses `cache`: what it asks for, else the first; None if the cache lacks it."""
    groups = cache.spec.node_groups
    asked = service.annotations.get(GROUP_ANNOTATION, groups[0] if groups else None)
    return asked if asked in groups else None
