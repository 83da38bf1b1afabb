"""Which ModelCaches share one artifact, and which cannot: one directory of a pool holds one revision. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.controller.admitting import Verdict
from cluster.controller.world import Model, Name, World
from cluster.resources import CacheArtifactSpec
from cluster.resources.model import Found
from cluster.resources.node import Retain, Warm
from fetcher.artifact import ArtifactRef
from fetcher.quantities import parse_duration

_STRONGEST: tuple[Retain, ...] = ("Always", "WhenPossible", "WhileUsed")
_WARMEST: tuple[Warm, ...] = ("Locked", "PageCache")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One directory in a pool. `owner` is the oldest of its `members`, the ModelCaches that want it."""

    pool: str
    key: str
    found: Found
    owner: Name
    members: tuple[Name, ...]
    retain: Retain
    warm: Warm | None

    @property
    def described(self) -> CacheArtifactSpec:
        """What its CacheArtifact says."""
        found = self.found
        return CacheArtifactSpec(self.pool, self.key, *self.owner, found.bytes, found.revision, found.listing_digest)


@dataclass(frozen=True, slots=True)
class Shared:
    """All artifacts, and for each ModelCache that wants another revision of one, the ModelCache that has it."""

    artifacts: tuple[Artifact, ...]
    conflicts: Mapping[Name, Name]


def reference(model: Model) -> ArtifactRef:
    """Return what a ModelCache asks for, in the words whose key `fetcher fetch` computes."""
    source = model.spec.source
    return ArtifactRef(source.uri, source.revision, source.include, source.exclude)


def shared(world: World, verdicts: Mapping[Name, Verdict]) -> Shared:
    """Group the ModelCaches by pool and key. Each of them had an answer of its own from its source, with its own credential."""
    groups: dict[tuple[str, str], list[tuple[Name, Found]]] = {}
    for name in sorted(world.models, key=lambda each: (world.models[each].age, each)):
        verdict, resolution = verdicts.get(name), world.resolutions.get(name)
        if verdict is None or verdict.pool is None or resolution is None or resolution.found is None:
            continue
        groups.setdefault((verdict.pool.metadata.name, resolution.found.key), []).append((name, resolution.found))
    artifacts, conflicts = [], {}
    for (pool, key), members in sorted(groups.items()):
        owner, found = members[0]
        same = tuple(name for name, other in members if _is_same(found, other))
        conflicts.update({name: owner for name, other in members if not _is_same(found, other)})
        specs = [world.models[name].spec for name in same]
        retain = next(each for each in _STRONGEST if any(spec.retain == each for spec in specs))
        warm = next((each for each in _WARMEST if any(spec.warm == each for spec in specs)), None)
        artifacts.append(Artifact(pool, key, found, owner, same, retain, warm))
    return Shared(tuple(artifacts), conflicts)


def _is_same(one: Found, other: Found) -> bool:
    return one.revision == other.revision and one.listing_digest == other.listing_digest


Sharing = Sequence[tuple[Name, Model]]
"""The ModelCaches that name one directory of one pool or claim, whether they may use it or not."""


def sharing(world: World) -> Mapping[tuple[str, str], Sharing]:
    """Return those that name each place and key."""
    groups: dict[tuple[str, str], list[tuple[Name, Model]]] = {}
    for name, each in world.models.items():
        groups.setdefault((place_of(name, each), reference(each).key), []).append((name, each))
    return groups


def place_of(name: Name, model: Model) -> str:
    """Return the pool of a ModelCache, or its claim with the namespace."""
    placement = model.spec.placement
    if placement.pools:
        return placement.pools[0].name
    return f"{name[0]}/{placement.claim.name if placement.claim is not None else name[1]}"


def pin_of(name: Name, world: World, together: Sharing) -> str | None:
    """Return the revision that the source of a ModelCache shall be asked about; None for the one that it has now.

    That is the revision of an older ModelCache that has the same directory, else the one that this ModelCache has already,
    unless it shall be replaced by what the source has now.
    """
    model = world.models[name]
    older = (
        (each.age, each.metadata.namespace, found.revision)
        for other, each in together
        if (each.age, other) < (model.age, name)
        and (resolution := world.resolutions.get(other)) is not None
        and (found := resolution.found) is not None
        and found.revision is not None
    )
    if (oldest := min(older, default=None)) is not None:
        return oldest[2]
    if interval_of(together) is not None:
        return None
    known = world.resolutions.get(name)
    found = known.found if known is not None else model.status.artifact
    return found.revision if found is not None and found.key == reference(model).key else None


def interval_of(together: Sharing) -> float | None:
    """Return the seconds after which a source is asked for a newer revision; None for never.

    One directory has one revision, so all ModelCaches that share it must want that, and the shortest interval counts.
    """
    if any(each.spec.refresh_policy != "OnChange" for _, each in together):
        return None
    return min((parse_duration(each.spec.refresh_interval) for _, each in together), default=None)
