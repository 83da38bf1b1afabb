"""Which models of a node stay because services use them, and when their caches are asked about that. Pure.

A cache lists the services that use it. It is asked only while something waits for room. Until then all that lies there stays,
so a node whose models all fit asks nothing, and none makes room before its cache has answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cluster.kserve.agent import Artifact
from cluster.resources import Observed

FRESH = 300.0
"""Seconds for which an answer counts. A service can come at any time, and an old answer must cost it nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Keys of what makes no room: `used` by services, or `unknown`: it lies there, and nobody has said whether it is used."""

    used: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether services use an artifact. `since`: when its caches said so, in seconds of a monotonic clock."""

    used: bool
    since: float


def asked(
    wanted: Collection[Artifact],
    observed: Mapping[str, Observed],
    lying: Collection[str],
    answers: Mapping[str, Answer],
    *,
    now: float,
    recheck: float,
) -> tuple[Artifact, ...]:
    """Return whose caches to ask now: of what made room, which comes back for a service, and while something waits for room,
    of what could make it. `lying`: keys of what is there. `recheck`: seconds until the same is asked again."""
    waits = any(_waits(observed.get(each.key)) for each in wanted)
    return tuple(
        each
        for each in wanted
        if (_made_room(observed.get(each.key)) or (waits and (each.key in lying or _waits(observed.get(each.key)))))
        and not _counts(answers.get(each.key), now, recheck)
    )


def standing(
    wanted: Iterable[Artifact],
    observed: Mapping[str, Observed],
    lying: Collection[str],
    answers: Mapping[str, Answer],
    *,
    now: float,
) -> Standing:
    """Return what makes no room. `lying`: keys of what is there."""
    keys = {each.key for each in wanted}
    known = {key: answer for key, answer in answers.items() if _counts(answer, now, FRESH)}
    unknown = (key for key in keys - known.keys() if key in lying and not _made_room(observed.get(key)))
    return Standing(frozenset(key for key in keys & known.keys() if known[key].used), frozenset(unknown))


def _counts(answer: Answer | None, now: float, seconds: float) -> bool:
    return answer is not None and now - answer.since < seconds


def _waits(observed: Observed | None) -> bool:
    return observed is not None and (observed.phase, observed.reason) == ("Queued", "Capacity")


def _made_room(observed: Observed | None) -> bool:
    return observed is not None and observed.phase == "Evicted"
