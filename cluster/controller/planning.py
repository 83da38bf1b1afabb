"""From what was observed to what shall be: one pure function, so that every rule can be tried as given → then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cluster.controller import daemon_set, descriptions, labels, leases, volumes
from cluster.controller.actions import Action, Remove
from cluster.controller.admitting import CLAIM_SOURCES, Verdict, verdicts
from cluster.controller.claim_telling import status_of_claim
from cluster.controller.counting import Count, counted
from cluster.controller.daemon_set import Agents
from cluster.controller.hydrating import Hydrations, hydrations
from cluster.controller.jobs import Means
from cluster.controller.placing import Assignment, assigned
from cluster.controller.pool_telling import status_of_pool
from cluster.controller.sharing import Shared, shared
from cluster.controller.specs import Specs, specs
from cluster.controller.telling import Case, status_of_model
from cluster.controller.world import Name, Pool, Resolution, World
from cluster.resources import CachePoolStatus, ModelCacheStatus, NodeCacheSpec
from cluster.resources.model import Found

_UNASKED = Resolution()


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be. Objects that are not mentioned stay as they are.

    `actions` come in the order in which they are done. `verdicts` says whose source is asked.
    """

    specs: Mapping[str, NodeCacheSpec]
    removed: tuple[str, ...]
    actions: tuple[Action, ...]
    models: Mapping[Name, ModelCacheStatus]
    pools: Mapping[str, CachePoolStatus]
    verdicts: Mapping[Name, Verdict]
    yielded: frozenset[tuple[str, str]]


def plan(
    world: World,
    agents: Agents,
    *,
    moment: str,
    allow_loopback: bool = False,
    claim_sources: tuple[str, ...] = CLAIM_SOURCES,
) -> Plan:
    """Decide everything at once. `moment` is the time in the form of RFC 3339, for conditions that change."""
    judged = verdicts(world, allow_loopback=allow_loopback, claim_sources=claim_sources)
    readable = [pool for name, pool in world.pools.items() if name not in world.unknown.pools]
    assignment = assigned(readable, world.nodes)
    together = shared(world, judged)
    nodes = specs(world, judged, assignment, together)
    wanted = _wanted_volumes(together, world)
    claims = hydrations(world, judged, _means(agents), moment=moment)
    actions = (
        *daemon_set.changes(world, agents),
        *descriptions.changes(world, together, nodes.wanted),
        *volumes.changes(world, wanted, _unknown(judged, world)),
        *claims.actions,
        *labels.changes(world, assignment),
        *leases.removals(world),
    )
    return Plan(
        specs=nodes.wanted,
        removed=nodes.removed,
        actions=actions,
        models=_models(world, judged, together, nodes, claims, moment=moment),
        pools=_pools(world, readable, assignment, moment=moment),
        verdicts=judged,
        yielded=nodes.yielded,
    )


def _means(agents: Agents) -> Means:
    return Means(agents.image, agents.hub_endpoint, f"{agents.namespace}:{agents.controller}")


def takes_away(decided: Plan, world: World) -> bool:
    """Whether the plan removes an object, or an entry of a NodeCache."""
    if decided.removed or any(isinstance(each, Remove) for each in decided.actions):
        return True
    return any(
        (there := world.caches.get(node)) is not None and not there.spec.artifacts.keys() <= spec.artifacts.keys()
        for node, spec in decided.specs.items()
    )


def _wanted_volumes(together: Shared, world: World) -> Mapping[Name, tuple[Found, Pool]]:
    return {name: (each.found, world.pools[each.pool]) for each in together.artifacts for name in each.members}


def _unknown(judged: Mapping[Name, Verdict], world: World) -> Collection[Name]:
    """ModelCaches whose volumes stay: what they want is not known, or their source has not answered."""
    return {
        name
        for name, verdict in judged.items()
        if verdict.unknown or (verdict.pool is not None and world.resolutions.get(name, _UNASKED).found is None)
    }


def _models(
    world: World, judged: Mapping[Name, Verdict], together: Shared, nodes: Specs, claims: Hydrations, *, moment: str
) -> Mapping[Name, ModelCacheStatus]:
    statuses = {}
    for name, verdict in judged.items():
        if verdict.unknown:
            continue
        model, placed = world.models[name], nodes.placed.get(name)
        answer = world.resolutions.get(name, _UNASKED)
        if (hydration := claims.of.get(name)) is not None:
            statuses[name] = status_of_claim(Case(model, verdict, answer), hydration, moment=moment)
            continue
        claim = world.claims.get(name)
        case = Case(
            model,
            verdict,
            answer,
            counted(world, placed, name) if placed is not None else Count(),
            together.conflicts.get(name),
            _refusal(world, name),
            awaited=claim is not None and answer.found is not None and claim.key != answer.found.key,
        )
        statuses[name] = status_of_model(case, moment=moment)
    return statuses


def _refusal(world: World, name: Name) -> str | None:
    of_the_claim = world.refusals.get((volumes.CLAIM, *name))
    return of_the_claim or world.refusals.get((volumes.VOLUME, "", volumes.volume_name(name)))


def _pools(world: World, readable: Collection[Pool], assignment: Assignment, *, moment: str) -> Mapping[str, CachePoolStatus]:
    return {
        name: status_of_pool(world, pool, assignment.nodes[name], assignment.overlaps[name], moment=moment)
        for pool in readable
        if (name := pool.metadata.name) in assignment.nodes
    }
