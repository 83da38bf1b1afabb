"""What an agent does and reports: given entries, what lies there and what it remembers, then phases and actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.agent import remembering
from cluster.agent.deciding import MARGIN, Plan, plan
from cluster.agent.states import Attempt, Job, Lying, Memory, Problem, Survey, Wanted
from cluster.resources import Observed
from fetcher.artifact import ArtifactRef
from fetcher.errors import CacheBusy, FetchError, GatedRepo, OutOfSpace, RateLimited, Unreachable
from fetcher.planning.eviction import Resident, least_recently_used

GiB = 1024**3
DAY = 86400.0


def key(name: str) -> str:
    return ArtifactRef(f"hf://org/{name}").key


def wanted(name: str, size: int = GiB, **more: Any) -> Wanted:
    return replace(Wanted(key(name), "team", name, size, "rev1", "listing"), **more)


def lying(name: str, **more: Any) -> Lying:
    return replace(Lying(key(name), "rev1", "listing", "Digest", allocated=GiB), **more)


def root(*there: Lying, **more: Any) -> Survey:
    used = sum(each.allocated for each in there)
    return replace(Survey({each.key: each for each in there}, used, 100 * GiB), **more)


def failure(entry: Wanted, reason: str = "Unreachable", *, final: bool = False, until: float = 100.0) -> Attempt:
    return Attempt(entry, reason, "a sentence", final, 1, until)


def decided(
    entries: Sequence[Wanted] | None, survey: Survey | None = None, memory: Memory | None = None, running: Job | None = None,
    *, now: float = 10.0,
) -> Plan:  # fmt: skip
    return plan(entries, survey or root(), memory or Memory(), running, now=now, grace=DAY)


def reported(made: Plan) -> dict[str, str]:
    """Phase and reason of each model, by key."""
    return {key: "/".join(filter(None, (each.phase, each.reason))) for key, each in made.observed.items()}


def fetched(made: Plan) -> str | None:
    return made.job.wanted.model if made.job is not None else None


M = wanted("m")
PHASES = [
    pytest.param(M, root(), Memory(), None, "Queued", "m", id="nothing lies there: it is fetched"),
    pytest.param(replace(M, turn=False), root(), Memory(), None, "Queued/Turn", None, id="not its turn: it is not fetched"),
    pytest.param(M, root(), Memory(), Job(M, "fetch"), "Fetching", None, id="one fetch at a time"),
    pytest.param(M, root(lying("m")), Memory(), None, "Ready", None, id="revision and digests are there: adopted"),
    pytest.param(
        replace(M, turn=False), root(lying("m")), Memory(), None, "Ready", None, id="what is there needs no turn"
    ),
    pytest.param(M, root(lying("m", revision="rev0")), Memory(), None, "Queued", "m", id="another revision is not Ready"),
    pytest.param(
        replace(M, turn=False), root(lying("m", revision="rev0")), Memory(), None, "Queued/Turn", None,
        id="another revision waits for its turn",
    ),
    pytest.param(
        M, root(lying("m", proof="Checksum")), Memory(), None, "Queued", "m",
        id="without digests the ModelCache is asked whether that is enough",
    ),
    pytest.param(
        replace(M, turn=False), root(lying("m", proof="None")), Memory(), None, "Queued/Turn", "m",
        id="asking that takes no turn",
    ),
    pytest.param(
        M, root(lying("m", proof="None")), Memory(confirmed={M.key: ("rev1", "listing")}), None, "Ready", None,
        id="what a fetch compared is Ready",
    ),
    pytest.param(
        M, root(lying("m", proof="None")), Memory(confirmed={M.key: ("rev1", "older")}), None, "Queued", "m",
        id="what a fetch compared with another listing is not",
    ),
    pytest.param(
        replace(M, revision=None), root(lying("m", revision=None)), Memory(), None, "Ready", None,
        id="without revisions the same listing is Ready",
    ),
    pytest.param(
        replace(M, revision=None), root(lying("m", revision=None, listing_digest="other")), Memory(), None, "Queued", "m",
        id="without revisions another listing is fetched",
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(M)}), None, "Waiting/Unreachable", None, id="a failure that passes waits"
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(M, until=5.0)}), None, "Waiting/Unreachable", "m", id="and is tried again"
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(M, "GatedRepo", final=True)}), None, "Failed/GatedRepo", None,
        id="a final failure stays",
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(M, "Capacity")}), None, "Queued/Capacity", None,
        id="no room now is a queue and no failure",
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(replace(M, revision="rev0"), final=True)}), None, "Queued", "m",
        id="a failure of an older revision is none of this one",
    ),
    pytest.param(
        M, root(), Memory(attempts={M.key: failure(replace(M, held=True, turn=False), final=True)}), None,
        "Failed/Unreachable", None, id="a turn and a hold do not undo a failure",
    ),
    pytest.param(
        M, root(lying("m")), Memory(damaged={M.key: "chunk 3 differs"}), None, "Damaged/DigestMismatch", "m",
        id="damage is repaired",
    ),
    pytest.param(
        M, root(lying("m")), Memory(damaged={M.key: "x"}, attempts={M.key: failure(M)}), None, "Damaged/Unreachable", None,
        id="a repair that failed waits too",
    ),
    pytest.param(
        M, root(problem=Problem("NotAMountPoint", "why")), Memory(), None, "Queued/NotAMountPoint", None,
        id="without a root nothing is fetched",
    ),
    pytest.param(
        M, root(capacity=2 * GiB), Memory(evicted=frozenset({M.key})), None, "Queued", "m", id="evicted, and there is room"
    ),
    pytest.param(
        M, root(lying("other"), capacity=2 * GiB), Memory(evicted=frozenset({M.key})), None, "Evicted/Capacity", None,
        id="evicted, and it would evict others",
    ),
    pytest.param(
        replace(M, held=True), root(lying("other"), capacity=2 * GiB), Memory(evicted=frozenset({M.key})), None, "Queued", "m",
        id="evicted, but a pod needs it",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "survey", "memory", "running", "phase", "job"), PHASES)
def test_given_then(entry: Wanted, survey: Survey, memory: Memory, running: Job | None, phase: str, job: str | None) -> None:
    made = decided([entry], survey, memory, running)
    assert reported(made) == {entry.key: phase}
    assert fetched(made) == job


class TestOrder:
    ENTRIES = (
        wanted("large", 9 * GiB),
        wanted("small"),
        wanted("always", 8 * GiB, retain="Always"),
        wanted("held", 9 * GiB, held=True),
    )

    def test_what_pods_use_comes_first_then_what_stays_then_the_smaller(self) -> None:
        there, order = list[Lying](), list[str | None]()
        for _ in self.ENTRIES:
            name = fetched(decided(self.ENTRIES, root(*there)))
            order.append(name)
            there.append(lying(name or ""))
        assert order == ["held", "always", "small", "large"]

    def test_one_that_waits_blocks_no_other(self) -> None:
        memory = Memory(attempts={key("held"): failure(self.ENTRIES[3])})
        assert fetched(decided(self.ENTRIES, root(), memory)) == "always"

    def test_a_failure_that_ends_wakes_the_agent(self) -> None:
        assert decided([M], root(), Memory(attempts={M.key: failure(M, until=77.0)})).wake == 77.0


class TestUnknown:
    def test_without_a_node_cache_nothing_happens(self) -> None:
        memory = Memory(unwanted={M.key: 0.0}, fetched=frozenset({M.key}))
        made = decided(None, root(lying("m", ours=True)), memory, now=10 * DAY)
        assert (made.job, made.hold, made.release, made.remove, made.observed) == (None, frozenset(), frozenset(), (), {})

    def test_and_a_fetch_under_way_goes_on(self) -> None:
        assert not decided(None, root(), Memory(), Job(M, "fetch")).stop

    def test_a_fetch_that_nobody_wants_any_more_stops(self) -> None:
        assert decided([], root(), Memory(), Job(M, "fetch")).stop
        assert decided([replace(M, revision="rev2")], root(), Memory(), Job(M, "fetch")).stop
        assert not decided([replace(M, held=True, turn=False)], root(), Memory(), Job(M, "fetch")).stop


class TestHolds:
    def test_what_pods_use_or_stays_is_held(self) -> None:
        entries = [wanted("held", held=True), wanted("always", retain="Always"), M]
        made = decided(entries, root(lying("held"), lying("always"), lying("m")))
        assert made.hold == {key("held"), key("always")}

    def test_a_hold_ends_with_its_reason(self) -> None:
        assert decided([M], root(lying("m", ours=True))).release == {M.key}

    def test_an_entry_that_is_missing_from_one_look_only_stays_held(self) -> None:
        once = Memory(gone={M.key: 9.0})
        assert not decided([], root(lying("m", ours=True)), once).release
        assert decided([], root(lying("m", ours=True)), replace(once, unwanted={M.key: 9.0})).release == {M.key}

    def test_a_hold_of_an_earlier_process_whose_entry_is_gone_ends_after_the_grace(self) -> None:
        there = root(lying("m", ours=True))
        memory = remembering.looked(Memory(), "one", [], 0.0)
        for now in (10.0, 20.0):
            memory = remembering.surveyed(memory, there.lying, now)
        assert not decided([], there, memory, now=9.0 + DAY).release
        assert decided([], there, memory, now=10.0 + DAY).release == {M.key}
        again = remembering.surveyed(remembering.looked(memory, "one", [M.key], 30.0), there.lying, 30.0)
        assert not decided([wanted("m", held=True)], there, again, now=10.0 + DAY).release
        assert not remembering.looked(memory, "two", [], 30.0).strays


class TestOrphans:
    """Only what this process fetched for an entry that it saw go, twice, is an orphan."""

    def after(self, *looks: tuple[float, Sequence[str]], fetched: bool = True, uid: str = "one") -> Memory:
        memory = remembering.looked(Memory(), "one", [M.key], 0.0)
        if fetched:
            memory = remembering.completed(memory, M, cached=False)
        for now, keys in looks:
            memory = remembering.looked(memory, uid, keys, now)
        return memory

    @pytest.mark.parametrize(
        ("looks", "more", "orphans"),
        [
            pytest.param([(10.0, [])], {}, False, id="one look is not enough"),
            pytest.param([(10.0, []), (39.0, [])], {}, False, id="nor are two within 30 seconds"),
            pytest.param([(10.0, []), (40.0, [])], {}, True, id="two looks 30 seconds apart are"),
            pytest.param([(10.0, []), (30.0, [M.key]), (45.0, [])], {}, False, id="it came back in between"),
            pytest.param([(10.0, []), (40.0, [])], {"fetched": False}, False, id="it was adopted"),
            pytest.param([(10.0, []), (40.0, [])], {"uid": "two"}, False, id="the NodeCache is another one"),
        ],
    )
    def test_given_looks(self, looks: list[tuple[float, list[str]]], more: dict[str, Any], orphans: bool) -> None:
        assert bool(self.after(*looks, **more).orphans) == orphans

    def test_what_was_found_complete_is_no_orphan(self) -> None:
        memory = remembering.completed(self.after(fetched=False), M, cached=True)
        for now in (10.0, 40.0):
            memory = remembering.looked(memory, "one", [], now)
        assert not memory.orphans

    def test_what_was_fetched_for_a_former_node_cache_is_no_orphan_of_this_one(self) -> None:
        memory = self.after((10.0, [M.key]), (20.0, []), (60.0, []), uid="two")
        assert memory.unwanted.keys() == {M.key}
        assert not memory.orphans

    def test_an_orphan_keeps_its_bytes_for_a_day(self) -> None:
        memory = self.after((10.0, ()), (40.0, ()))
        assert decided([], root(lying("m")), memory, now=40.0 + DAY - 1).remove == ()
        assert decided([], root(lying("m")), memory, now=40.0 + DAY).remove == (M.key,)

    def test_unless_what_it_evicted_would_come_back(self) -> None:
        memory = replace(self.after((10.0, ()), (40.0, ())), evicted=frozenset({key("n")}))
        assert decided([wanted("n")], root(lying("m"), capacity=GiB + MARGIN), memory, now=50.0).remove == (M.key,)
        assert decided([wanted("n", 9 * GiB)], root(lying("m"), capacity=GiB), memory, now=50.0).remove == ()

    def test_what_a_pod_holds_is_not_removed(self) -> None:
        memory = self.after((10.0, ()), (40.0, ()))
        assert decided([], root(lying("m", kept=True)), memory, now=10 * DAY).remove == ()

    def test_what_is_wanted_again_is_no_orphan(self) -> None:
        memory = self.after((10.0, ()), (40.0, ()), (50.0, [M.key]))
        assert decided([M], root(lying("m")), memory, now=10 * DAY).remove == ()


class TestEviction:
    def test_orphans_go_first_then_the_unwanted_then_by_retain_then_by_use(self) -> None:
        memory = Memory(unwanted={key("orphan"): 0.0, key("unwanted"): 0.0}, fetched=frozenset({key("orphan")}))
        entries = [wanted("old"), wanted("used", retain="WhileUsed"), wanted("new")]
        ranks = decided(entries, root(), memory).ranks
        used = {"orphan": 9.0, "unwanted": 8.0, "used": 7.0, "of a pod": 6.0, "old": 5.0, "new": 10.0}
        residents = [Resident(key(name), {name: 1}, moment, rank=ranks.get(key(name), 0)) for name, moment in used.items()]
        order = []
        for count in range(1, 7):
            victims = least_recently_used(residents, lambda made, count=count: made >= count)  # type: ignore[misc]
            assert victims is not None
            order += [each.key for each in victims if each.key not in order]
        assert order == [key(name) for name in ("orphan", "unwanted", "used", "old", "of a pod", "new")]

    def test_what_an_earlier_process_evicted_is_known_from_the_status(self) -> None:
        memory = remembering.adopted(Memory(), {M.key: Observed("Evicted", "Capacity")})
        assert reported(decided([M], root(lying("x"), capacity=GiB), memory)) == {M.key: "Evicted/Capacity"}

    def test_what_an_earlier_process_found_damaged_is_known_from_the_status_and_not_ready(self) -> None:
        memory = remembering.adopted(Memory(), {M.key: Observed("Damaged", "DigestMismatch", "a.bin differs")})
        made = decided([M], root(lying("m")), memory)
        assert made.observed[M.key] == Observed("Damaged", "DigestMismatch", "a.bin differs")
        assert made.job == Job(M, "repair")

    def test_two_of_three_models_fit_and_nothing_is_fetched_again_in_ten_minutes(self) -> None:
        """A cache that evicts the least recently used, simulated: each model is fetched once."""
        entries = [wanted("a"), wanted("b"), wanted("c")]
        there, memory, log = dict[str, Lying](), Memory(), list[str]()
        for second in range(600):
            survey = root(*there.values(), capacity=2 * GiB + 3 * MARGIN)
            memory = remembering.surveyed(memory, survey.lying, float(second))
            made = decided(entries, survey, memory, now=float(second))
            if made.job is None:
                continue
            log.append(made.job.wanted.model)
            if len(there) == 2:
                victim = min(there.values(), key=lambda each: each.last_used).key
                del there[victim]
                memory = remembering.evicted(memory, victim)
            there[made.job.wanted.key] = lying(made.job.wanted.model, last_used=float(second))
            memory = remembering.completed(memory, made.job.wanted, cached=False)
        assert sorted(log) == ["a", "b", "c"]


ERRORS = [
    pytest.param(Unreachable("no answer"), "Unreachable", False, 30.0, id="what may pass is tried after 30 seconds"),
    pytest.param(RateLimited("slow down", retry_after=500.0), "RateLimited", False, 500.0, id="or when the server says so"),
    pytest.param(GatedRepo("ask its owner"), "GatedRepo", True, 3600.0, id="what is final after an hour"),
    pytest.param(OutOfSpace("needed 9, used 8"), "CapacityExceeded", True, 3600.0, id="too large for the pool"),
    pytest.param(CacheBusy("wait"), "Capacity", False, 30.0, id="no room now"),
]


class TestFailures:
    @pytest.mark.parametrize(("error", "reason", "final", "wait"), ERRORS)
    def test_given_an_error(self, error: FetchError, reason: str, final: bool, wait: float) -> None:
        attempt = remembering.failed(Memory(), M, error, (), now=0.0, jitter=0.0).attempts[M.key]
        assert (attempt.reason, attempt.final, attempt.until) == (reason, final, wait)
        assert attempt.message == error.message

    def test_waits_double_up_to_ten_minutes(self) -> None:
        memory, waits = Memory(), []
        for _ in range(7):
            memory = remembering.failed(memory, M, Unreachable("no answer"), (), now=0.0, jitter=0.0)
            waits.append(memory.attempts[M.key].until)
        assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]

    def test_other_limits_give_a_model_without_room_another_try(self) -> None:
        attempts = {M.key: failure(M, "CapacityExceeded", final=True), key("n"): failure(wanted("n"), "GatedRepo", final=True)}
        assert remembering.resized(Memory(attempts=attempts)).attempts.keys() == {key("n")}

    def test_success_forgets_the_failures(self) -> None:
        memory = Memory(attempts={M.key: failure(M)}, damaged={M.key: "x"})
        assert not remembering.completed(memory, M, cached=False).attempts
        assert not remembering.completed(memory, M, cached=False).damaged
