"""What a ModelCache says of itself: conditions with a word and a sentence each, counts, and what pods mount. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.controller.admitting import Verdict
from cluster.controller.counting import NO_MEMORY, NO_ROOM, Count, commonest
from cluster.controller.sharing import reference
from cluster.controller.showing import shown
from cluster.controller.world import Model, Name, Resolution
from cluster.resources import Condition, Copies, FailedNode, ModelCacheStatus
from cluster.resources.conditions import Status, merged
from cluster.resources.model import MOST_FAILED, Found
from fetcher.quantities import size

Told = tuple[str, Status, str, str]
"""A condition: its type, status, reason and message."""
_NOTHING = Count()


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one ModelCache. `refusal` is what the API server refused to make for it: a sentence."""

    model: Model
    verdict: Verdict
    resolution: Resolution
    count: Count = _NOTHING
    conflict: Name | None = None
    refusal: str | None = None
    awaited: bool = False
    """Whether pods still use the volume of a former artifact."""

    @property
    def found(self) -> Found | None:
        return self.resolution.found if not self.verdict.reason else None


def status_of_model(case: Case, *, moment: str) -> ModelCacheStatus:
    """Return the status of a ModelCache at `moment`, in the form of RFC 3339."""
    count, found = case.count, case.found
    before = case.model.status.conditions
    known = found is not None and case.conflict is None
    size_shown, revision = shown(found)
    return ModelCacheStatus(
        claim_name=case.model.metadata.name if known and case.refusal is None else None,
        command=command(case.model, case.verdict.pool.spec.root) if known and case.verdict.pool is not None else None,
        artifact=found,
        copies=Copies(count.desired, count.ready, len(count.failures), count.warm, count.from_origin, count.from_peers),
        progress=f"{count.ready}/{count.desired}",
        size=size_shown,
        revision=revision,
        failed_nodes=tuple(FailedNode(node, count.failures[node][0]) for node in sorted(count.failures)[:MOST_FAILED]),
        conditions=merged(before, conditions(case), moment=moment),
    )


def conditions(case: Case) -> tuple[Condition, ...]:
    """Return the conditions of a ModelCache, without times."""
    degraded = _degraded(case)
    told: tuple[Told, ...] = (
        resolved(case),
        _progressing(case, degraded),
        _ready(case, degraded),
        ("Degraded", "True" if degraded else "False", *(degraded or ("AsExpected", "nothing is wrong"))),
        _capacity(case.count),
        _conflict(case),
        _verified(case),
        *(() if case.model.spec.warm == "None" else (_warm(case),)),
    )
    return as_conditions(case, told)


def as_conditions(case: Case, told: Iterable[Told]) -> tuple[Condition, ...]:
    """Return what is told of a ModelCache as conditions, without times."""
    generation = case.model.metadata.generation
    asked = case.resolution.generation if case.found is not None else generation
    return tuple(
        Condition(kind, status, _word(reason), message or reason, asked if kind == "Resolved" else generation)
        for kind, status, reason, message in told
    )


def resolved(case: Case) -> Told:
    found, answer = case.found, case.resolution
    if found is not None:
        at = f" at revision {found.revision}" if found.revision else ""
        return "Resolved", "True", "Resolved", f"{found.files} files, {size(found.bytes)}{at}"
    if case.verdict.reason:
        return "Resolved", "Unknown", case.verdict.reason, "the source is not asked"
    if answer.reason:
        return "Resolved", "False", answer.reason, answer.message
    return "Resolved", "Unknown", "Resolving", "the source has not answered yet"


def _degraded(case: Case) -> tuple[str, str] | None:
    if case.verdict.reason:
        return case.verdict.reason, case.verdict.message
    if case.conflict is not None:
        return "RevisionConflict", _conflict_sentence(case.conflict)
    if case.resolution.reason:
        return case.resolution.reason, case.resolution.message
    if case.refusal is not None:
        return "ClaimRefused", case.refusal
    return _told_by_nodes(case.count, case.count.failures) or _told_by_nodes(case.count, case.count.chills)


def _told_by_nodes(count: Count, problems: Mapping[str, tuple[str, str]]) -> tuple[str, str] | None:
    if (worst := commonest(problems)) is None:
        return None
    reason, message, nodes = worst
    return reason, f"{len(nodes)} of {count.desired} nodes, such as {nodes[0]}: {message or reason}"


def _progressing(case: Case, degraded: tuple[str, str] | None) -> Told:
    count = case.count
    if case.found is None or case.conflict is not None:
        return (
            "Progressing",
            "False" if degraded else "Unknown",
            degraded[0] if degraded else "Resolving",
            "nothing is fetched yet",
        )
    if case.awaited:
        return "Progressing", "True", "InUse", "pods still use the former artifact; the claim changes once they have ended"
    if count.ready >= count.desired > 0:
        if count.warming:
            return "Progressing", "True", "Warming", f"all copies are ready; {count.warming} are being read into memory"
        return "Progressing", "False", "Complete", "all copies are ready"
    if count.fetching or count.waiting_for_turn:
        sentence = f"{count.fetching} nodes fetch, {count.waiting_for_turn} wait for their turn"
        return "Progressing", "True", _pace(count), sentence
    if degraded:
        return "Progressing", "False", degraded[0], "no node makes progress"
    return "Progressing", "True", "NoNodes", _no_nodes(case)


def _ready(case: Case, degraded: tuple[str, str] | None) -> Told:
    count, least = case.count, case.model.spec.min_ready
    if case.found is not None and case.conflict is None and count.ready >= least and case.refusal is None:
        return "Ready", "True", "Ready", f"{count.ready} of {count.desired} copies are ready"
    if degraded:
        return "Ready", "False", *degraded
    if case.found is None:
        return "Ready", "False", "Resolving", "the source has not answered yet"
    if not (count.fetching or count.waiting_for_turn or count.ready):
        return "Ready", "False", "NoNodes", _no_nodes(case)
    sentence = f"{count.ready} of {count.desired} copies are ready, and minReady is {least}"
    if count.desired < least:
        return "Ready", "False", "TooFewNodes", f"{sentence}; so many nodes do not report"
    return "Ready", "False", _pace(count), sentence


def _pace(count: Count) -> str:
    """Return one word for a roll-out under way: between two nodes of a wave nobody fetches, and that is no change."""
    return "Fetching" if count.fetching or count.ready else "Queued"


def _no_nodes(case: Case) -> str:
    pool = case.model.spec.placement.pools[0].name
    return f"no agent of CachePool {pool} reports; kubectl get cachepool {pool} shows its nodes, and its DaemonSet the agents"


def _capacity(count: Count) -> Told:
    if full := sorted(node for node, (reason, _) in count.failures.items() if reason in NO_ROOM):
        message = count.failures[full[0]][1]
        return "CapacityExceeded", "True", "CapacityExceeded", f"{len(full)} nodes lack room, such as {full[0]}: {message}"
    if full := sorted(node for node, (reason, _) in count.chills.items() if reason == NO_MEMORY):
        message = count.chills[full[0]][1]
        return "CapacityExceeded", "True", NO_MEMORY, f"{len(full)} nodes lack memory, such as {full[0]}: {message}"
    return "CapacityExceeded", "False", "Fits", "no node lacks room"


def _warm(case: Case) -> Told:
    """Told only of models that shall be warm."""
    count = case.count
    sentence = f"{count.warm} of {count.ready} ready copies are in memory"
    if count.warm and count.warm >= count.ready:
        return "Warm", "True", "Warm", sentence
    if (told := _told_by_nodes(count, count.chills)) is not None:
        return "Warm", "False", *told
    return "Warm", "False", "Warming" if count.ready else "NoCopies", sentence


def _conflict(case: Case) -> Told:
    if case.conflict is None:
        return "RevisionConflict", "False", "NoConflict", "no other ModelCache wants another revision in this directory"
    return "RevisionConflict", "True", "RevisionConflict", _conflict_sentence(case.conflict)


def _conflict_sentence(other: Name) -> str:
    return (
        f"ModelCache {'/'.join(other)} is older and has another revision in the same directory; "
        "name a revision in spec.source, which gives it a directory of its own"
    )


def _verified(case: Case) -> Told:
    if case.found is None or case.count.ready == 0:
        return "Verified", "Unknown", "NoCopies", "no copy is ready"
    if not case.resolution.digests:
        return "Verified", "False", "NoDigests", "the source publishes no digest for at least one file"
    return "Verified", "True", "Digests", "every file was compared with a published digest"


def command(model: Model, root: str) -> str:
    """Return what a pod runs on the directory `root` to be answered from this copy."""
    ref = reference(model)
    words = ["fetcher", "fetch", ref.uri, "--cache-dir", root]
    if ref.revision is not None:
        words += ["--revision", ref.revision]
    for flag, patterns in (("--include", ref.include), ("--exclude", ref.exclude)):
        for pattern in patterns:
            words += [flag, pattern]
    return shlex.join(words)


def _word(reason: str) -> str:
    """Return `reason` in the alphabet of reasons: an agent may be of another version, and one bad word would block a status."""
    kept = "".join(each for each in reason if each.isascii() and each.isalnum())
    return kept if kept[:1].isalpha() else "Unknown"


def changed(before: Mapping[str, Condition], now: Condition) -> bool:
    """Whether a condition says something else than before. At first, only what is unusual is worth an event."""
    known = before.get(now.type)
    if known is None:
        return now.status == "True" or (now.status == "False" and now.type == "Resolved")
    return (known.status, known.reason) != (now.status, now.reason)
