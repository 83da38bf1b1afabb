"""The volumes and claims of caches: which shall exist, which shall go, and which must be freed for a new claim. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.kserve.names import download_names, serving_claim, serving_volume
from cluster.kserve.users import group_of, users_of
from cluster.kserve.world import Cache, Id, Stored, World, leaving, owner_of

Document = dict[str, Any]
MANAGED_BY = {"app.kubernetes.io/managed-by": "weightlift-controller"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A volume and the claim that is bound to it. `owns_volume`, `owns_claim`: whether the cache is their owner.

    `lasting`: whether the volume outlives its claim while the cache lives.
    """

    cache: Cache
    group: str
    volume: str
    claim: Id
    owns_volume: bool
    owns_claim: bool
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class VolumeWrites:
    """`create` first, then `free`: names of volumes whose old claim is forgotten; `remove`: what is not needed any more."""

    create_volumes: tuple[Document, ...]
    create_claims: tuple[Document, ...]
    free: tuple[Stored, ...]
    remove_claims: tuple[Stored, ...]
    remove_volumes: tuple[Stored, ...]


def volume_writes(world: World) -> VolumeWrites:
    """Return what to create, to free and to remove. A volume or claim of that name that exists stays as it is."""
    wanted = list(_wanted(world))
    # Of two pairs with one name the first counts: KServe's names are ambiguous where a name contains another.
    volumes = {each.volume: each for each in reversed(wanted)}
    claims = {each.claim: each for each in reversed(wanted)}
    known = world.known_groups
    return VolumeWrites(
        tuple(
            _volume(each, known[each.group].spec.persistent_volume_spec)
            for name, each in sorted(volumes.items())
            if name not in world.volumes and each.group in known
        ),
        tuple(
            _claim(each, known[each.group].spec.persistent_volume_claim_spec)
            for key, each in sorted(claims.items())
            if key not in world.claims and each.group in known
        ),
        tuple(
            stored
            for name, each in sorted(volumes.items())
            if (stored := world.volumes.get(name)) is not None
            and stored.released
            and not stored.leaving
            and stored.partner == each.claim
        ),
        tuple(each for each in belonging_claims(world, world.managed) if each.id not in claims and _may_go(each, world)),
        tuple(
            each
            for each in belonging_volumes(world, world.managed)
            if not _stays(each, volumes, world) and _may_go(each, world)
        ),
    )


def belonging_claims(world: World, caches: Iterable[Cache]) -> list[Stored]:
    """Return the claims that exist for `caches`."""
    return list({each.id: each for cache in caches for each in _belonging(world, cache)[1]}.values())


def belonging_volumes(world: World, caches: Iterable[Cache]) -> list[Stored]:
    """Return the volumes that exist for `caches`."""
    return list({each.name: each for cache in caches for each in _belonging(world, cache)[0]}.values())


def _wanted(world: World) -> Iterator[Pair]:
    for cache in world.managed:
        if not leaving(cache):
            yield from _downloads(cache, world)
            yield from _servings(cache, world)


def _downloads(cache: Cache, world: World) -> Iterator[Pair]:
    job_namespace, own = world.options.job_namespace, cache.metadata.namespace
    for group in cache.spec.node_groups:
        volume, claim = download_names(cache.metadata.name, own, group)
        # An owner must be in the namespace of what it owns, or in none.
        yield Pair(cache, group, volume, (job_namespace, claim), not own, own in ("", job_namespace))


def _servings(cache: Cache, world: World) -> Iterator[Pair]:
    """Yield what services mount. Where others manage that, it is neither made nor removed."""
    own = cache.metadata.namespace
    used = {(each.namespace, group_of(each, cache)) for each in users_of(cache, world.services)}
    for namespace, group in sorted((namespace, group) for namespace, group in used if group is not None):
        if not world.options.disable_volume_management:
            yield _serving(cache, group, namespace, owns_volume=not own)


def _serving(cache: Cache, group: str, namespace: str, *, owns_volume: bool) -> Pair:
    name = cache.metadata.name
    claim = (namespace, serving_claim(name, group))
    return Pair(cache, group, serving_volume(name, group, namespace), claim, owns_volume, True, lasting=owns_volume)


def _belonging(world: World, cache: Cache) -> tuple[list[Stored], list[Stored]]:
    """Return the volumes and claims of `cache`: those that it owns, and those without an owner that have its names.

    A name alone proves nothing: it must be ours, or be bound to the other one of the pair.
    """
    uid, namespace = cache.metadata.uid, cache.metadata.namespace
    pairs = list(_downloads(cache, world))
    if namespace and not world.options.disable_volume_management:
        pairs += [_serving(cache, group, namespace, owns_volume=False) for group in cache.spec.node_groups]
    by_volume, by_claim = {each.volume: each for each in pairs}, {each.claim: each for each in pairs}

    def unowned(stored: Stored, partner: Id | None) -> bool:
        return bool(namespace) and not stored.owner and partner is not None and (stored.ours or stored.partner == partner)

    volumes = [
        each
        for each in world.volumes.values()
        if each.owner == uid or unowned(each, by_volume[each.name].claim if each.name in by_volume else None)
    ]
    claims = [
        each
        for each in world.claims.values()
        if each.owner == uid or unowned(each, ("", by_claim[each.id].volume) if each.id in by_claim else None)
    ]
    return volumes, claims


def _stays(volume: Stored, wanted: Mapping[str, Pair], world: World) -> bool:
    """Whether a volume of a cache is needed, or stays for the next service while its cache lives."""
    if volume.name in wanted:
        return True
    lasting = {
        serving_volume(each.metadata.name, group, volume.partner[0] if volume.partner else "")
        for each in world.managed
        if not leaving(each) and each.metadata.uid == volume.owner and not each.metadata.namespace
        for group in each.spec.node_groups
    }
    return volume.name in lasting


def _may_go(stored: Stored, world: World) -> bool:
    """Whether a claim, or a volume, may be removed: it is not going already, and no service may use it that cannot be read."""
    namespace = stored.namespace or (stored.partner[0] if stored.partner else "")
    return not stored.leaving and namespace not in world.unreadable.users


def _volume(pair: Pair, spec: Mapping[str, Any]) -> Document:
    metadata = {"name": pair.volume, "labels": MANAGED_BY, **_owners(pair.cache, owns=pair.owns_volume)}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": dict(spec)}


def _claim(pair: Pair, spec: Mapping[str, Any]) -> Document:
    namespace, name = pair.claim
    metadata = {"name": name, "namespace": namespace, "labels": MANAGED_BY, **_owners(pair.cache, owns=pair.owns_claim)}
    body = {**spec, "volumeName": pair.volume}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": body}


def _owners(cache: Cache, *, owns: bool) -> dict[str, Any]:
    return {"ownerReferences": [owner_of(cache)]} if owns else {}
