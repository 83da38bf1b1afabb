"""Whether a ModelCache may use the pool that it names, and whether its source may be asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.allowing import refuse_source
from cluster.controller.world import Model, Name, Pool, World
from fetcher.errors import SourceNotAllowed


@dataclass(frozen=True, slots=True)
class Verdict:
    """The pool of a ModelCache, none if it is for a claim, or `reason` and `message` why nothing is fetched.

    `sources`: below which prefixes the controller asks; None if it does not. `unknown`: nothing can be said, so nothing
    changes.
    """

    pool: Pool | None = None
    reason: str = ""
    message: str = ""
    unknown: bool = False
    sources: tuple[str, ...] | None = None


_UNKNOWN = Verdict(unknown=True)
CLAIM_SOURCES = ("hf://",)
"""What may be fetched into claims unless the installation says otherwise: as of a CachePool that names no sources."""


def verdicts(world: World, *, allow_loopback: bool, claim_sources: tuple[str, ...] = CLAIM_SOURCES) -> Mapping[Name, Verdict]:
    """Judge every ModelCache, also those that cannot be read, but none that is being deleted."""
    found = {
        name: _verdict(name, model, world, allow_loopback=allow_loopback)
        if model.spec.placement.pools
        else _of_claim(model, claim_sources, allow_loopback=allow_loopback)
        for name, model in world.models.items()
        if not model.metadata.deletion_timestamp
    }
    return found | dict.fromkeys(world.unknown.models, _UNKNOWN)


def _verdict(name: Name, model: Model, world: World, *, allow_loopback: bool) -> Verdict:
    namespace, wanted = name[0], model.spec.placement.pools[0].name
    labels = world.namespaces.get(namespace)
    if wanted in world.unknown.pools or namespace in world.unknown.namespaces or labels is None:
        return _UNKNOWN
    pool = world.pools.get(wanted)
    if pool is None or pool.metadata.deletion_timestamp:
        return Verdict(None, "PoolMissing", f"there is no CachePool {wanted}; kubectl get cachepools lists those there are")
    selector = pool.spec.namespace_selector
    if selector is None or not selector.matches(labels):
        return Verdict(
            None,
            "NamespaceNotSelected",
            f"the namespaceSelector of CachePool {wanted} does not select namespace {namespace}; ask its owner to select it",
        )
    try:
        refuse_source(model.spec.source.uri, pool.spec.allowed_sources, allow_loopback=allow_loopback)
    except SourceNotAllowed as error:
        return Verdict(None, error.reason, error.message)
    return Verdict(pool, sources=pool.spec.allowed_sources)


def _of_claim(model: Model, sources: tuple[str, ...], *, allow_loopback: bool) -> Verdict:
    """Judge a ModelCache whose model a Job fetches, in its own namespace. The controller cannot ask as a service account."""
    try:
        refuse_source(model.spec.source.uri, sources, owner="the controller's --claim-sources", allow_loopback=allow_loopback)
    except SourceNotAllowed as error:
        return Verdict(None, error.reason, error.message)
    as_account = model.spec.auth is not None and model.spec.auth.service_account_name is not None
    return Verdict(sources=None if as_account else sources)
