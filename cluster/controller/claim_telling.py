"""What a ModelCache says of its claim: the conditions that one in a pool has, of one copy. Pure."""

from __future__ import annotations

from cluster.controller.counting import NO_ROOM
from cluster.controller.hydrating import Hydration
from cluster.controller.jobs import MOUNT
from cluster.controller.showing import shown
from cluster.controller.telling import Case, Told, as_conditions, command, resolved
from cluster.resources import Copies, ModelCacheStatus
from cluster.resources.conditions import merged

_Problem = tuple[str, str] | None


def status_of_claim(case: Case, claim: Hydration, *, moment: str) -> ModelCacheStatus:
    """Return the status of a ModelCache with a claim at `moment`, in the form of RFC 3339."""
    problem = _problem(case, claim)
    ready, found = claim.holds is not None, claim.holds or case.found
    size, revision = shown(found)
    told: tuple[Told, ...] = (
        _resolved(case),
        _progressing(claim, problem),
        _ready(claim, problem),
        ("Degraded", "True", *problem) if problem else ("Degraded", "False", "AsExpected", "nothing is wrong"),
        _capacity(claim),
        ("RevisionConflict", "False", "NoConflict", "each claim is asked for one revision of this directory"),
        _verified(case, claim),
    )
    return ModelCacheStatus(
        claim_name=claim.claim if ready else None,
        command=command(case.model, MOUNT) if ready else None,
        artifact=found,
        copies=Copies(1, int(ready), int(bool(claim.reason))),
        progress=f"{int(ready)}/1",
        size=size,
        revision=revision,
        hydrated=claim.hydrated,
        conditions=merged(case.model.status.conditions, as_conditions(case, told), moment=moment),
    )


def _problem(case: Case, claim: Hydration) -> _Problem:
    for reason, message in (
        (case.verdict.reason, case.verdict.message),
        (claim.reason, claim.message),
        (case.resolution.reason, case.resolution.message),
    ):
        if reason:
            return reason, message
    return None


def _resolved(case: Case) -> Told:
    if case.verdict.sources is None and not case.verdict.reason:
        return "Resolved", "Unknown", "NotAsked", "the Job asks the source, as its service account"
    return resolved(case)


def _progressing(claim: Hydration, problem: _Problem) -> Told:
    match claim.state:
        case "Fetching":
            return "Progressing", "True", "Fetching", f"a Job fetches into claim {claim.claim}"
        case "Ready":
            return "Progressing", "False", "Complete", f"claim {claim.claim} holds what is asked for"
        case "Waiting" if claim.reason:
            return "Progressing", "True", "Waiting", "another Job follows"
    if problem:
        return "Progressing", "False", problem[0], "nothing is fetched"
    return "Progressing", "True", "Queued", "the source is asked, or the claim is made"


def _ready(claim: Hydration, problem: _Problem) -> Told:
    if claim.holds is not None:
        at = f" at revision {claim.holds.revision}" if claim.holds.revision else ""
        return "Ready", "True", "Ready", f"claim {claim.claim} holds {claim.holds.key}{at}"
    if problem:
        return "Ready", "False", *problem
    reason = "Fetching" if claim.state == "Fetching" else "Queued"
    return "Ready", "False", reason, f"claim {claim.claim} does not hold the model yet"


def _capacity(claim: Hydration) -> Told:
    if claim.reason in NO_ROOM:
        return "CapacityExceeded", "True", "CapacityExceeded", f"claim {claim.claim} lacks room: {claim.message}"
    return "CapacityExceeded", "False", "Fits", "the claim does not lack room"


def _verified(case: Case, claim: Hydration) -> Told:
    if claim.holds is None:
        return "Verified", "Unknown", "NoCopies", "the claim does not hold the model yet"
    required = case.model.spec.verification is not None and case.model.spec.verification.require == "Digest"
    if required or (case.found is not None and case.resolution.digests):
        return "Verified", "True", "Digests", "every file was compared with a published digest"
    if case.found is None:
        return "Verified", "Unknown", "NotAsked", "the Job alone knows whether the source publishes digests; require them"
    return "Verified", "False", "NoDigests", "the source publishes no digest for at least one file"
