"""The CacheArtifacts: made before the first NodeCache names one, removed when no NodeCache names it any more. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cluster.controller.actions import Action, Make, Remove, rendered
from cluster.controller.sharing import Shared
from cluster.controller.world import World
from cluster.resources import CACHE_ARTIFACT, CacheArtifactSpec, NodeCacheSpec, encoded
from cluster.resources.artifact import mark_of, name_of

KIND = CACHE_ARTIFACT.name


def changes(world: World, shared: Shared, specs: Mapping[str, NodeCacheSpec]) -> Iterator[Action]:
    """Yield what is to be made and removed. `specs`: what the NodeCaches shall say."""
    for artifact in shared.artifacts:
        name = name_of(artifact.key, mark_of(artifact.described))
        if name not in world.artifacts and name not in world.unknown.artifacts:
            yield Make(KIND, document(name, artifact.described))
    if world.unknown.caches:  # what they name is not known
        return
    named = {name_of(artifact.key, mark_of(artifact.described)) for artifact in shared.artifacts}
    for spec in (*specs.values(), *(each.spec for each in world.caches.values())):
        named.update(name_of(key, entry.mark) for key, entry in spec.artifacts.items())
    for name, described in world.artifacts.items():
        if described.ours and name not in named:
            yield Remove(KIND, "", name, described.uid)


def document(name: str, spec: CacheArtifactSpec) -> Mapping[str, object]:
    """Return the CacheArtifact."""
    found = {"apiVersion": CACHE_ARTIFACT.api_version, "kind": KIND, "metadata": {"name": name}, "spec": encoded(spec)}
    return rendered(found)
