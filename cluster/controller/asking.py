"""When the source of a ModelCache is asked, and what is kept of its answer. Pure.

A source is asked once for each intent and each version of its Secret. Its answer is pinned: what a branch becomes later
changes nothing, unless all ModelCaches that share the copies say OnChange. Then the oldest of them asks again and again, and
the others ask about what it found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from cluster.controller.admitting import Verdict
from cluster.controller.sharing import interval_of, pin_of, place_of, reference, sharing
from cluster.controller.volumes import volume_name
from cluster.controller.world import Name, Resolution, World
from cluster.resources.model import Auth, Found
from fetcher.artifact import ArtifactRef, RemoteFile, listing_digest, total_size
from fetcher.errors import FetchError
from fetcher.quantities import doubled

FIRST_WAIT, LONGEST_WAIT = 10.0, 600.0
"""Seconds until a source that did not answer is asked again."""
FINAL_WAIT = 3600.0
"""Seconds after a final refusal: a person has to act, and may act at the source alone."""
LOOK_FAILED, LOOK_GOOD = 10.0, 300.0
"""Seconds between two looks at a Secret. Nobody may watch it, and one that is being corrected is waited for."""
_OTHER = ("OtherRevision", "ContentChanged")
"""Reasons for which the source is asked again: it has another revision, or other content than it lists."""
CHANGED_WAIT = 60.0
"""Seconds until a source is asked again because a node met other content."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and as whom. `changed`: a node met other content than was answered before. `refresh`: seconds after which
    an answer is old; None for never."""

    uid: str
    ref: ArtifactRef
    auth: Auth | None
    require: str
    pool: str | None
    allowed: tuple[str, ...]
    pin: str | None
    generation: int
    changed: bool = False
    refresh: float | None = None

    @property
    def intent(self) -> tuple[object, ...]:
        """What a new answer is needed for if it changes."""
        return self.uid, self.ref, self.auth, self.require


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of one ModelCache's source. Times are of the monotonic clock; `due` is the next look."""

    resolution: Resolution
    uid: str
    intent: tuple[object, ...] | None = None
    version: str | None = None
    tries: int = 0
    asked: float = -math.inf
    due: float = -math.inf


def questions(world: World, verdicts: Mapping[Name, Verdict]) -> Mapping[Name, Question]:
    """Return what is asked for each ModelCache that may have its model."""
    changed = {
        key
        for cache in world.caches.values()
        for key, seen in cache.observed.items()
        if seen.reason in _OTHER and seen.phase in ("Waiting", "Failed")
    }
    result, groups = {}, sharing(world)
    for name, verdict in verdicts.items():
        if verdict.sources is None:
            continue
        model = world.models[name]
        ref, verification = reference(model), model.spec.verification
        together = groups[place_of(name, model), ref.key]
        result[name] = Question(
            model.metadata.uid,
            ref,
            model.spec.auth,
            verification.require if verification is not None else "None",
            verdict.pool.metadata.name if verdict.pool is not None else None,
            verdict.sources,
            pin_of(name, world, together),
            model.metadata.generation,
            ref.key in changed,
            interval_of(together),
        )
    return result


def remembered(world: World, name: Name, question: Question) -> Asked | None:
    """Return what the status of a ModelCache says that its source answered; None if it says nothing of this artifact.

    A tenant who may write statuses could claim an answer that its token never got. So the volume counts too, which only the
    controller makes, and only after an answer.
    """
    model, volume = world.models[name], world.volumes.get(volume_name(name))
    if volume is None or (volume.key, volume.model) != (question.ref.key, name):
        return None
    found, told = model.status.artifact, {each.type: each for each in model.status.conditions}
    resolved = told.get("Resolved")
    if found is None or found.key != question.ref.key or resolved is None or resolved.status != "True":
        return None
    digests = "Verified" not in told or told["Verified"].reason != "NoDigests"
    resolution = Resolution(found, digests, generation=resolved.observed_generation)
    same = resolved.observed_generation == question.generation
    return Asked(resolution, question.uid, question.intent if same else None)


def must_ask(asked: Asked, question: Question, version: str | None, now: float) -> bool:
    """Whether the source itself is asked, now that the Secret has this `version`."""
    if asked.intent != question.intent or (asked.version is not None and asked.version != version):
        return True
    if asked.resolution.reason:
        return now >= asked.asked + _patience(asked)
    found = asked.resolution.found
    if found is None or (question.changed and now >= asked.asked + CHANGED_WAIT):
        return True
    if question.refresh is None:
        return False
    return now >= asked.asked + question.refresh or question.pin not in (None, found.revision)


def answered(
    question: Question, files: Iterable[RemoteFile], *, revision: str | None, version: str | None, now: float
) -> Asked:
    """Return what is known after the answer: the chosen `files` at `revision`."""
    files = tuple(files)
    found = Found(question.ref.key, total_size(files), len(files), revision, listing_digest(files))
    resolution = Resolution(found, all(each.digests for each in files), generation=question.generation)
    return Asked(
        resolution, question.uid, question.intent, version, 0, now, next_look(question, failed=False, now=now, asked=now)
    )


def refused(asked: Asked, question: Question, error: FetchError, *, version: str | None, now: float, by_source: bool) -> Asked:
    """Return what is known after an error, of the source or before it (`by_source` False). An earlier answer stays."""
    resolution = replace(
        asked.resolution, reason=error.reason, message=error.message, retryable=error.retryable, generation=question.generation
    )
    return Asked(
        resolution,
        question.uid,
        question.intent if by_source else None,
        version,
        asked.tries + 1,
        now,
        next_look(question, failed=True, now=now, asked=now),
    )


def unchanged(asked: Asked, question: Question, version: str | None, now: float) -> Asked:
    """Return what is known after a look at a Secret that has not changed."""
    due = next_look(question, failed=bool(asked.resolution.reason), now=now, asked=asked.asked)
    return replace(confirmed(asked, question), version=version, due=due)


def confirmed(asked: Asked, question: Question) -> Asked:
    """Return the same answer for a newer specification that asks for nothing else."""
    return replace(asked, resolution=replace(asked.resolution, generation=question.generation))


def next_look(question: Question, *, failed: bool, now: float, asked: float) -> float:
    """Return when the Secret is looked at again, or the source of a ModelCache, which was `asked` the last time."""
    if failed:
        return now + LOOK_FAILED
    secret = now + LOOK_GOOD if question.auth is not None else math.inf
    return min(secret, max(now, asked + question.refresh)) if question.refresh is not None else secret


def _patience(asked: Asked) -> float:
    if not asked.resolution.retryable:
        return FINAL_WAIT
    return doubled(FIRST_WAIT, asked.tries, LONGEST_WAIT)
