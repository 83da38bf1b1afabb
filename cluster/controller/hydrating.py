"""Models in claims: which Job shall run, and what its claim holds. Pure.

A claim holds what the last Job that completed fetched, until the next one has completed: `fetcher` publishes a directory beside
the old one, or replaces it at once. What was fetched stands in the status, because a Job is gone a day after its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from cluster.controller.actions import Action, Change, Make, Remove
from cluster.controller.admitting import Verdict
from cluster.controller.jobs import JOB, Means, job, job_name, permission, template_claim
from cluster.controller.reading import RETAINED, RETENTION
from cluster.controller.sharing import reference
from cluster.controller.volumes import CLAIM, VOLUME
from cluster.controller.world import Fetch, Model, Name, Target, Told, World
from cluster.resources.model import Found
from fetcher.quantities import doubled

FIRST_WAIT, LONGEST_WAIT = 60.0, 3600.0
"""Seconds until a Job that failed is followed by another one: its pods have tried for minutes already. After a final error it
is the longest: a person has to act, and may act at the source alone."""
_SPARE = 64 * 1024**2
"""Bytes for journals and manifests, of a claim whose size the listing decides."""

State = Literal["Ready", "Fetching", "Waiting", "Stopped"]


@dataclass(frozen=True, slots=True)
class Hydration:
    """How far a claim is. `holds`: what can be read in it now. `reason` and `message`: what is wrong, if something is."""

    claim: str
    state: State
    holds: Found | None = None
    hydrated: str | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Hydrations:
    """The state of the claim of each ModelCache that has one, and what is done for them."""

    of: Mapping[Name, Hydration]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class _Case:
    """One ModelCache, its claim, and what shall lie there."""

    name: Name
    model: Model
    claim: str
    target: Target
    found: Found | None
    parts: int
    wanted: str


def hydrations(world: World, verdicts: Mapping[Name, Verdict], means: Means, *, moment: str) -> Hydrations:
    """Decide for every claim. `moment` is in the form of RFC 3339."""
    states: dict[Name, Hydration] = {}
    actions: list[Action] = []
    said = _said(world)
    for name, verdict in verdicts.items():
        model = world.models.get(name)
        if model is None or verdict.unknown or model.spec.placement.pools:
            continue
        states[name], steps = _one(world, name, model, verdict, means, said, moment)
        actions += steps
    return Hydrations(states, (*actions, *_claims(world)))


def _one(
    world: World, name: Name, model: Model, verdict: Verdict, means: Means, said: Mapping[Name, Told], moment: str
) -> tuple[Hydration, list[Action]]:
    claim = _claim_of(model)
    target = world.targets.get((name[0], claim))
    found = _answer(world, name, model)
    if target is None or target.deleting:
        state = Hydration(claim, "Stopped")
        return _without_claim(world, name, model, verdict, found, state)
    wanted = _digest(model, target, found)
    before = _holds(model, claim, wanted)
    case = _Case(name, model, claim, target, found, _parts(model), wanted)
    jobs = [(each, fetch) for each, fetch in world.fetches.items() if fetch.model == name]
    if verdict.reason:
        return before, [_removal(*each) for each in jobs if _is_running(each[1])]
    if before.hydrated != wanted and verdict.sources is not None and found is None:
        return replace(before, state="Stopped"), []  # what is to be fetched is not known yet
    superseded = [_removal(*each) for each in jobs if each[1].hydration != wanted and _is_running(each[1])]
    if before.hydrated == wanted:
        return before, superseded
    own = [(each, fetch) for each, fetch in jobs if fetch.hydration == wanted]
    state, steps = _next(world, case, before, own, means, said, moment)
    return state, [*superseded, *steps]


def _without_claim(
    world: World, name: Name, model: Model, verdict: Verdict, found: Found | None, state: Hydration
) -> tuple[Hydration, list[Action]]:
    template = model.spec.placement.claim_template
    if template is None:
        sentence = f"there is no PersistentVolumeClaim {name[0]}/{state.claim}; create it, or name another one"
        return replace(state, reason="ClaimMissing", message=sentence), []
    if verdict.reason:
        return state, []
    if (refusal := world.refusals.get((CLAIM, name[0], state.claim))) is not None:
        return replace(state, reason="ClaimRefused", message=refusal), []
    request = model.spec.size or (requested(found.bytes) if found is not None else None)
    if request is not None:
        return replace(state, state="Waiting"), [Make(CLAIM, template_claim(model, template, request))]
    if verdict.sources is None:
        sentence = "the controller cannot ask the source as a service account, so it does not know the size; set spec.size"
        return replace(state, reason="SizeUnknown", message=sentence), []
    return state, []


def _next(
    world: World,
    case: _Case,
    before: Hydration,
    own: list[tuple[Name, Fetch]],
    means: Means,
    said: Mapping[Name, Told],
    moment: str,
) -> tuple[Hydration, list[Action]]:
    """Return the state and the next Job of a claim that does not hold what it shall."""
    if not own:
        return _attempt(world, case, before, 1, means)
    place, last = max(own, key=lambda each: each[1].attempt)
    told = said.get(place)
    match last.state:
        case "Complete":
            return Hydration(case.claim, "Ready", _result(case, told), case.wanted), []
        case "Running":
            return _telling(before, "Fetching", told), []
        case "Failed":
            state = _telling(before, "Waiting", told or Told(place, "", *_words(last)))
            wait = doubled(FIRST_WAIT, last.attempt, LONGEST_WAIT) if told is None or told.retryable else LONGEST_WAIT
            if _seconds(last.ended, moment) < wait:
                return state, []
            another, steps = _attempt(world, case, before, last.attempt + 1, means)
            return (another if another.reason else replace(state, state="Fetching")), steps


def _attempt(world: World, case: _Case, before: Hydration, number: int, means: Means) -> tuple[Hydration, list[Action]]:
    place = (JOB, case.name[0], job_name(case.name[1], case.wanted, number))
    if (refusal := world.refusals.get(place)) is not None:
        sentence = f"{refusal}; where the namespace has not allowed Jobs: {permission(case.name[0], means)}"
        return replace(before, state="Stopped", reason="JobRefused", message=sentence), []
    followed = case.found if case.model.spec.refresh_policy == "OnChange" else None
    resolved = followed.revision if followed is not None else None
    made = Make(JOB, job(case.model, case.claim, case.wanted, number, case.parts, means, resolved=resolved))
    return replace(before, state="Fetching"), [made]


def _telling(before: Hydration, state: State, told: Told | None) -> Hydration:
    if told is None or told.reason == "Completed":
        return replace(before, state=state)
    return replace(before, state=state, reason=told.reason, message=told.message or told.reason)


def _result(case: _Case, told: Told | None) -> Found:
    """What a Job that completed fetched: what was listed; what the pod tells, if the source had another revision by then."""
    revision = told.revision or None if told is not None else None
    if case.found is not None and revision in (None, case.found.revision):
        return case.found
    return Found(reference(case.model).key, told.bytes if told is not None else 0, 0, revision)


def _holds(model: Model, claim: str, wanted: str) -> Hydration:
    """What the status says that the claim holds, if it says so of this very claim."""
    status = model.status
    if status.hydrated is None or status.artifact is None or status.hydrated[:_OF_CLAIM] != wanted[:_OF_CLAIM]:
        return Hydration(claim, "Waiting")
    return Hydration(claim, "Ready", status.artifact, status.hydrated)


def _claim_of(model: Model) -> str:
    named = model.spec.placement.claim
    return named.name if named is not None else model.metadata.name


def _parts(model: Model) -> int:
    placement = model.spec.placement
    place = placement.claim or placement.claim_template
    return place.parts if place is not None else 1


def _answer(world: World, name: Name, model: Model) -> Found | None:
    """What the source answered, if it was asked for what is wanted now."""
    resolution = world.resolutions.get(name)
    found = resolution.found if resolution is not None else None
    return found if found is not None and found.key == reference(model).key else None


_OF_CLAIM = 5
"""Characters of a hydration's digest that mean the claim: another claim of the same name holds nothing."""


def _digest(model: Model, target: Target, found: Found | None) -> str:
    """Return what is fetched where, as a digest. What a branch becomes later counts only if it is followed."""
    spec, ref = model.spec, reference(model)
    listed = (found.revision, found.listing_digest) if found is not None and spec.refresh_policy == "OnChange" else ()
    require = spec.verification.require if spec.verification is not None else "None"
    what = json.dumps([model.metadata.name, ref.key, require, *listed])
    return hashlib.sha256(target.uid.encode()).hexdigest()[:_OF_CLAIM] + hashlib.sha256(what.encode()).hexdigest()[:7]


def requested(count: int) -> str:
    """Return what a claim for `count` bytes requests: a tenth more, in whole MiB."""
    return f"{(count * 11 // 10 + _SPARE) // 1024**2 + 1}Mi"


def _said(world: World) -> Mapping[Name, Told]:
    """The word of each Job's pods that counts: of a Job that completed the last success, of another one the last failure.

    What a pod waits for counts least: the pod that follows a failed one says nothing of why that one failed.
    """

    def weight(told: Told) -> tuple[bool, bool, str]:
        fetch = world.fetches.get(told.job)
        is_complete = fetch is not None and fetch.state == "Complete"
        return (told.reason == "Completed") == is_complete, told.ended, told.since

    return {told.job: told for told in sorted(world.told.values(), key=weight)}


def _claims(world: World) -> Iterable[Action]:
    """Return what keeps the claims of templates: their volumes stay, and they themselves if that is wanted."""
    mounted = {(namespace, each) for (namespace, _), pod in world.pods.items() for each in pod.claims}
    for place, target in world.targets.items():
        if target.made_for != place or target.deleting or place in world.unknown.models:
            continue
        if target.volume and target.volume not in world.retained:
            patch = {"metadata": {"labels": {RETAINED: "true"}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}
            yield Change(VOLUME, "", target.volume, patch)
        model = world.models.get(place)
        template = model.spec.placement.claim_template if model is not None else None
        if template is not None:
            if target.goes != (template.retention == "Delete"):
                yield Change(CLAIM, *place, {"metadata": {"annotations": {RETENTION: template.retention}}})
        elif target.goes and place not in mounted and place[0] not in world.unknown.pods_of:
            yield Remove(CLAIM, *place, target.uid)


def _is_running(fetch: Fetch) -> bool:
    return fetch.state == "Running" and not fetch.deleting


def _removal(place: Name, fetch: Fetch) -> Action:
    return Remove(JOB, *place, fetch.uid)


def _words(fetch: Fetch) -> tuple[str, str]:
    reason, _, message = fetch.message.partition(": ")
    return reason or "Failed", message


def _seconds(since: str, moment: str) -> float:
    """Seconds between two moments; much without the first one."""
    if not since:
        return LONGEST_WAIT
    return (datetime.fromisoformat(moment) - datetime.fromisoformat(since)).total_seconds()
