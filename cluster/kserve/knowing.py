"""What a node knows of the models it shall have: what they are, who may have them, and what could not be learned. Pure.

An artifact that lies there is what it is, without asking anybody. Another one is asked for at its source once. What is there
and what its source has can differ later; then the source is asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cluster.kserve.agent import Answers, Artifact, Identity, Lying, checks
from cluster.kserve.kinds import ModelStatus
from cluster.kserve.translating import Pin
from cluster.mappings import only, without
from cluster.resources import Phase
from fetcher.errors import FetchError
from fetcher.quantities import doubled

FIRST, LONGEST = 30.0, 600.0
"""Seconds until a source that did not answer is asked again: doubled each time."""
FINAL = 3600.0
"""Seconds until a source that has no such model is asked again."""
_CORRECTABLE = frozenset({77, 78})
"""Exit codes of what a person corrects without touching the cache: a credential, a permission, a Secret."""
_REFUSALS = _CORRECTABLE | {66}
"""Exit codes that keep a private artifact from an asker. Sources say of what one may not see that it does not exist."""

Question = tuple[str, Identity]
"""The key of an artifact, and as whom its source is asked."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a source did not answer. `until`: seconds of a monotonic clock."""

    reason: str
    message: str
    final: bool
    failures: int
    until: float


@dataclass(frozen=True, slots=True)
class Knowledge:
    """`pins`: by key, what an artifact is. `outdated`: keys whose source is to be asked though they lie there.

    `tried`: when an identity's credential was last refused. `provisional`: allowed by an earlier process, to be asked again.
    """

    pins: Mapping[str, Pin] = field(default_factory=dict)
    outdated: frozenset[str] = frozenset()
    answers: Answers = field(default_factory=Answers)
    failures: Mapping[Question, Failure] = field(default_factory=dict)
    tried: Mapping[Question, float] = field(default_factory=dict)
    provisional: frozenset[Question] = frozenset()


def surveyed(known: Knowledge, wanted: Collection[Artifact], there: Mapping[str, Pin]) -> Knowledge:
    """Return the knowledge after a look at what is wanted and at what lies there. What is not wanted any more is forgotten."""
    keys = {each.key for each in wanted}
    questions = {(each.key, identity) for each in wanted for identity in each.askers.values()}
    found = {key: pin for key, pin in there.items() if key in keys - known.pins.keys() - known.outdated}
    return Knowledge(
        {**{key: pin for key, pin in known.pins.items() if key in keys}, **found},
        known.outdated & keys,
        Answers(known.answers.allowed & questions, known.answers.refused & questions),
        only(known.failures, questions),
        only(known.tried, questions),
        known.provisional & questions,
    )


def remembered(known: Knowledge, wanted: Iterable[Artifact], before: Mapping[str, ModelStatus]) -> Knowledge:
    """Return the knowledge with what an earlier process of this node reported `before`: who had a model still has it, while its
    source does not say otherwise. So a restart needs no network."""
    had = {
        (each.key, identity)
        for each in wanted
        for name, identity in each.askers.items()
        if before.get(name) == "ModelDownloaded"
    }
    answers = Answers(known.answers.allowed | had, known.answers.refused)
    return replace(known, answers=answers, provisional=known.provisional | had)


def questions(
    known: Knowledge, wanted: Iterable[Artifact], lying: Mapping[str, Lying], *, now: float, recheck: float
) -> tuple[tuple[Artifact, Identity], ...]:
    """Return what to ask sources now: what an artifact is, or whether an identity may have one that is there.

    `recheck`: seconds until a credential that was refused is tried again, since somebody may have corrected its Secret.
    """
    wanted = tuple(wanted)
    due = {question for question, since in known.tried.items() if now - since >= recheck}
    answers = Answers(known.answers.allowed, known.answers.refused - due)
    unknown = ((each.key, each.fetched_as(answers)) for each in wanted if each.key not in known.pins)
    again = (each for each in known.provisional if each[0] in lying and lying[each[0]].private)
    found = dict.fromkeys((*unknown, *_keys(checks(wanted, lying, answers)), *sorted(again, key=repr)))
    by_key = {each.key: each for each in wanted}
    return tuple((by_key[key], identity) for key, identity in found if _is_due(known, (key, identity), now))


def answered(known: Knowledge, question: Question, pin: Pin) -> Knowledge:
    """Return the knowledge after a source listed an artifact: its asker may have it."""
    key, _ = question
    pins = {key: pin, **known.pins} if key not in known.outdated else {**known.pins, key: pin}
    allowed, refused = known.answers.allowed | {question}, known.answers.refused - {question}
    return replace(
        known,
        pins=pins,
        outdated=known.outdated - {key},
        answers=Answers(allowed, refused),
        failures=without(known.failures, question),
        tried=without(known.tried, question),
        provisional=known.provisional - {question},
    )


def failed(known: Knowledge, question: Question, error: FetchError, *, now: float, recheck: float) -> Knowledge:
    """Return the knowledge after a source did not answer, or refused the asker. `recheck` as for `questions`."""
    before = known.failures.get(question)
    failures = before.failures + 1 if before is not None else 1
    final, refused = not error.retryable, error.exit_code in _REFUSALS
    wait = doubled(FIRST, failures, LONGEST)
    if error.exit_code in _CORRECTABLE:
        wait = recheck
    elif final:
        wait = FINAL
    failure = Failure(error.reason, error.message, final, failures, now + wait)
    answers = known.answers
    if refused:
        answers = Answers(answers.allowed - {question}, answers.refused | {question})
    return replace(
        known,
        answers=answers,
        failures={**known.failures, question: failure},
        tried={**known.tried, question: now} if refused else known.tried,
        provisional=known.provisional - {question} if refused else known.provisional,
    )


def outdated(known: Knowledge, keys: Iterable[str]) -> Knowledge:
    """Return the knowledge after sources turned out to have other content than is known: they are asked again."""
    gone = frozenset(keys) & known.pins.keys()
    return replace(known, pins={key: pin for key, pin in known.pins.items() if key not in gone}, outdated=known.outdated | gone)


def phases(
    known: Knowledge, wanted: Iterable[Artifact], observed: Mapping[str, Phase], misplaced: Collection[str]
) -> dict[str, Phase]:
    """Return the phase of each artifact of which something is known. `observed`: as the agent reports it.

    `misplaced`: keys of artifacts whose node groups have another directory.
    """
    found: dict[str, Phase] = {}
    for each in wanted:
        failures = [known.failures[question] for question in _questions_of(each) if question in known.failures]
        if each.key in misplaced:
            found[each.key] = "Failed"
        elif each.key in known.pins and each.key in observed:
            found[each.key] = observed[each.key]
        elif each.key not in known.pins and failures:
            found[each.key] = "Failed" if all(failure.final for failure in failures) else "Waiting"
    return found


def _questions_of(artifact: Artifact) -> list[Question]:
    return [(artifact.key, identity) for identity in artifact.askers.values()]


def _keys(asked: Iterable[tuple[Artifact, Identity]]) -> list[Question]:
    return [(each.key, identity) for each, identity in asked]


def _is_due(known: Knowledge, question: Question, now: float) -> bool:
    return question not in known.failures or now >= known.failures[question].until
