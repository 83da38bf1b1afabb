"""What the agent does next, and what it reports. Pure: entries, what lies there, memory and time in; actions and phases out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cluster.agent.states import Attempt, Job, Lying, Memory, Room, Survey, Wanted, Warmth
from cluster.agent.warming import Warming, warm_now, warming
from cluster.resources import Observed
from cluster.resources.artifact import content_of

MARGIN = 8 * 1024 * 1024
"""Bytes beside the files of an artifact: journal, manifest, and what the filesystem rounds up."""
_LONGEST = 1000
"""Characters of a message in a status."""
_RANKS = {"WhileUsed": -1, "WhenPossible": 0, "Always": 1}
_ORPHAN, _UNWANTED = -3, -2
_NO_MEMORY = Room()
_COLD: Mapping[str, Warmth] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `job`: the next fetch or repair, if none runs. `stop`: the running one is not wanted any more.

    `hold` and `release`: keys whose hold is to be written or removed. `remove`: orphans to remove. `ranks`: who makes room
    first. `wake`: when something is due without any event, None for never. `warm`: what is kept in memory, in this order; None
    for what is kept now.
    """

    observed: Mapping[str, Observed]
    job: Job | None
    stop: bool
    hold: frozenset[str]
    release: frozenset[str]
    remove: tuple[str, ...]
    ranks: Mapping[str, int]
    wake: float | None
    warm: tuple[Wanted, ...] | None


def plan(
    wanted: Sequence[Wanted] | None,
    survey: Survey,
    memory: Memory,
    running: Job | None,
    *,
    now: float,
    grace: float,
    room: Room = _NO_MEMORY,
    warmth: Mapping[str, Warmth] = _COLD,
) -> Plan:
    """Return what to do. `wanted` is None while nothing is known: then nothing is fetched, removed or released.

    `grace`: seconds that an orphan keeps its bytes unless somebody needs them. `room`: the memory for models, of which
    `warmth` says by key what is used.
    """
    if wanted is None:
        return Plan({}, None, False, frozenset(), frozenset(), (), ranks((), memory), None, None)
    by_key = {each.key: each for each in wanted}
    whole = [each for each in wanted if is_whole(each, survey, memory)]
    warm = warming(whole, room, kept=warmth)
    situation = _Situation(survey, memory, running, now, warm, warmth)
    candidates = [job for each in wanted if (job := situation.job_of(each)) is not None] if running is None else []
    ours = frozenset(key for key, each in survey.lying.items() if each.ours)
    keep = frozenset(key for key, each in by_key.items() if key in survey.lying and spared(each))
    return Plan(
        observed={each.key: situation.observed(each) for each in wanted},
        job=min(candidates, key=_urgency, default=None),
        stop=running is not None and not _same(by_key.get(running.wanted.key), running.wanted),
        hold=keep - ours,
        # What is gone from one look only may come back, and so may what no look has shown to this process.
        release=frozenset(
            key
            for key in ours - keep
            if key in by_key or key in memory.unwanted or (key in memory.strays and now - memory.strays[key] >= grace)
        ),
        remove=_removals(wanted, survey, memory, running, now=now, grace=grace),
        ranks=ranks(wanted, memory),
        wake=min((each.until for each in memory.attempts.values() if each.until > now), default=None),
        warm=warm.kept if survey.problem is None else None,
    )


def spared(wanted: Wanted) -> bool:
    """Whether the artifact never makes room for others."""
    return wanted.held or wanted.retain == "Always"


def satisfies(lying: Lying | None, wanted: Wanted, memory: Memory) -> bool:
    """Whether what lies there is certainly what is wanted.

    Equal revisions mean equal content; without revisions the listing decides. An artifact that lacks digests may not be enough
    for the ModelCache: then the fetch, which reads that, says so, without fetching anything that is there.
    """
    if lying is None or lying.revision != wanted.revision:
        return False
    if memory.confirmed.get(wanted.key) == (wanted.revision, wanted.listing_digest):
        return True
    if lying.proof != "Digest":
        return False
    return wanted.revision is not None or lying.listing_digest == wanted.listing_digest


def is_whole(wanted: Wanted, survey: Survey, memory: Memory) -> bool:
    """Whether a copy lies there that pods may use."""
    return satisfies(survey.lying.get(wanted.key), wanted, memory) and wanted.key not in memory.damaged


def ranks(wanted: Iterable[Wanted], memory: Memory) -> Mapping[str, int]:
    """Return the rank of each artifact in eviction: orphans first, then what else is unwanted, then by `retain`.

    What pods fetched or was adopted without ever being wanted has no rank here, which is that of WhenPossible.
    """
    unwanted = {key: _ORPHAN if key in memory.orphans else _UNWANTED for key in memory.unwanted}
    return {**unwanted, **{each.key: _RANKS[each.retain] for each in wanted}}


def _urgency(job: Job) -> tuple[bool, bool, bool, int, str]:
    """Sorts jobs: what pods use, what must stay, what is damaged, and the smaller first."""
    wanted = job.wanted
    return not wanted.held, wanted.retain != "Always", job.kind != "repair", wanted.bytes, wanted.key


@dataclass(frozen=True, slots=True)
class _Situation:
    survey: Survey
    memory: Memory
    running: Job | None
    now: float
    warm: Warming
    warmth: Mapping[str, Warmth]

    def job_of(self, wanted: Wanted) -> Job | None:
        """Return what could be done for an entry now."""
        lying, attempt = self.survey.lying.get(wanted.key), self.attempt_of(wanted)
        if self.survey.problem is not None or (attempt is not None and self.now < attempt.until):
            return None
        if satisfies(lying, wanted, self.memory):
            return Job(wanted, "repair") if wanted.key in self.memory.damaged else None
        there = lying is not None and lying.revision == wanted.revision  # most likely nothing is left to fetch
        if (not wanted.turn and not there) or self.waits_for_room(wanted):
            return None
        return Job(wanted, "fetch")

    def attempt_of(self, wanted: Wanted) -> Attempt | None:
        attempt = self.memory.attempts.get(wanted.key)
        return attempt if attempt is not None and _same(wanted, attempt.wanted) else None

    def waits_for_room(self, wanted: Wanted) -> bool:
        """Whether the artifact was evicted and would evict others again: no thrash."""
        if wanted.key not in self.memory.evicted or spared(wanted):
            return False
        return wanted.bytes + MARGIN > self.survey.room

    def observed(self, wanted: Wanted) -> Observed:
        key, problem, attempt = wanted.key, self.survey.problem, self.attempt_of(wanted)
        lying = self.survey.lying.get(key)
        running = self.running if self.running is not None and self.running.wanted.key == key else None
        if satisfies(lying, wanted, self.memory):
            if key not in self.memory.damaged:
                origin, peers = self.memory.brought.get(key, (None, None))
                warm = warm_now(wanted, self.warm, self.warmth.get(key))
                content = content_of(wanted.revision, wanted.listing_digest)
                return replace(warm, content=content, from_origin=origin, from_peers=peers)
            reason, message = (attempt.reason, attempt.message) if attempt else ("DigestMismatch", self.memory.damaged[key])
            return Observed("Damaged", reason, message)
        if running is not None:
            return Observed("Fetching")
        if problem is not None:
            return Observed("Queued", problem.reason, problem.message[:_LONGEST])
        if attempt is not None:
            return _after(attempt)
        if self.waits_for_room(wanted):
            return Observed("Evicted", "Capacity", "made room for another model; it comes back when there is room")
        return Observed("Queued", None if wanted.turn else "Turn")


def _after(attempt: Attempt) -> Observed:
    phase = "Failed" if attempt.final else "Queued" if attempt.reason == "Capacity" else "Waiting"
    return Observed(phase, attempt.reason, attempt.message)  # type: ignore[arg-type]  # three of the phases


def _same(now: Wanted | None, before: Wanted) -> bool:
    """Whether an entry still asks for the same bytes, in the same name."""
    if now is None:
        return False
    return replace(now, turn=before.turn, held=before.held, retain=before.retain, warm=before.warm) == before


def _removals(
    wanted: Sequence[Wanted], survey: Survey, memory: Memory, running: Job | None, *, now: float, grace: float
) -> tuple[str, ...]:
    """Return the orphans whose grace is over, and those in whose place something evicted would come back."""
    if survey.problem is not None:
        return ()
    orphans = [survey.lying[key] for key in memory.orphans if key in survey.lying and not survey.lying[key].kept]
    orphans.sort(key=lambda each: (each.last_used, each.key))
    due = [each.key for each in orphans if now - memory.unwanted[each.key] >= grace]
    waiting = [each.bytes + MARGIN - survey.room for each in wanted if each.key in memory.evicted]
    missing = min((each for each in waiting if each > 0), default=0) if running is None else 0
    if missing and missing <= sum(each.allocated for each in orphans):
        for each in orphans:
            if missing > 0 and each.key not in due:
                due.append(each.key)
            missing -= each.allocated
    return tuple(due)
