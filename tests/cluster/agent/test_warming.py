"""What of a node's copies is kept in memory, and what is reported of it: given entries, budget and measures, then phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cluster.agent.deciding import Plan, plan
from cluster.agent.states import Lying, Memory, Problem, Room, Survey, Wanted, Warmth
from cluster.agent.warming import warming
from cluster.resources.artifact import content_of
from fetcher.artifact import ArtifactRef

GiB = 1024**3
WHOLE = Warmth(GiB, GiB, whole=True)
LOCKED = replace(WHOLE, locked=GiB)


def key(name: str) -> str:
    return ArtifactRef(f"hf://org/{name}").key


def wanted(name: str, size: int = GiB, **more: Any) -> Wanted:
    return replace(Wanted(key(name), "team", name, size, "rev1", "listing", warm="PageCache"), **more)


def decided(
    entries: Sequence[Wanted] | None,
    warmth: Mapping[str, Warmth] | None = None,
    *,
    budget: int = 2 * GiB,
    memory: Memory | None = None,
    problem: Problem | None = None,
    lying: Sequence[str] | None = None,
    **room: Any,
) -> Plan:
    """Decide with a complete copy of each entry, or of those named by `lying`."""
    names = [each.model for each in entries or ()] if lying is None else lying
    there = {key(name): Lying(key(name), "rev1", "listing", "Digest", allocated=GiB) for name in names}
    survey = Survey({} if problem else there, capacity=100 * GiB, problem=problem)
    return plan(entries, survey, memory or Memory(), None, now=0.0, grace=0.0, room=Room(budget, **room), warmth=warmth or {})


def kept(made: Plan) -> list[str] | None:
    names = {key(name): name for name in "abcdm"}
    return None if made.warm is None else [names[each.key] for each in made.warm]


M = wanted("m")
FAILED = Problem("NotLocked", "a sentence")
CASES = [
    pytest.param(replace(M, warm=None), None, "Ready", None, id="a model that shall not be warm is Ready"),
    pytest.param(M, None, "Warming", None, id="one that shall be is Warming at first"),
    pytest.param(M, Warmth(GiB, GiB // 2), "Warming", None, id="and while it is read"),
    pytest.param(M, Warmth(GiB, GiB), "Warming", None, id="and until all of it was measured at once"),
    pytest.param(M, WHOLE, "Ready", "PageCache", id="then it is Ready and warm"),
    pytest.param(M, replace(WHOLE, resident=GiB * 95 // 100), "Ready", "PageCache", id="a small loss is worth no status"),
    pytest.param(M, replace(WHOLE, resident=GiB // 2), "Warming", None, id="a large one is Warming again"),
    pytest.param(
        M, replace(WHOLE, resident=0, problem=Problem("NotResident", "x")), "Warming/NotResident", None,
        id="what memory does not keep says so",
    ),
    pytest.param(
        M, Warmth(problem=Problem("MalformedCheckpoint", "x"), idle=True), "Ready/MalformedCheckpoint", None,
        id="what cannot be read as weights is usable and cold",
    ),
    pytest.param(replace(M, warm="Locked"), LOCKED, "Ready", "Locked", id="locked"),
    pytest.param(M, LOCKED, "Ready", "Locked", id="more than is wanted is enough"),
    pytest.param(
        replace(M, warm="Locked"), replace(WHOLE, locked=1, problem=FAILED), "Ready/NotLocked", "PageCache",
        id="what can be locked in part only is kept by reading",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "measured", "phase", "warm"), CASES)
def test_given_then(entry: Wanted, measured: Warmth | None, phase: str, warm: str | None) -> None:
    (observed,) = decided([entry], {} if measured is None else {entry.key: measured}).observed.values()
    assert "/".join(filter(None, (observed.phase, observed.reason))) == phase
    assert (observed.warm, observed.content) == (warm, content_of("rev1", entry.listing_digest))


class TestOrder:
    def test_what_pods_use_comes_first_then_what_stays_then_the_smaller(self) -> None:
        entries = [wanted("a", 3), wanted("b", 2), wanted("c", 9, retain="Always"), wanted("d", 99, held=True)]
        assert kept(decided(entries)) == ["d", "c", "b", "a"]

    def test_what_is_kept_stays_whoever_comes(self) -> None:
        entries = [wanted("a"), wanted("b"), wanted("c", held=True)]
        made = decided(entries, {key("a"): WHOLE, key("b"): WHOLE})
        assert kept(made) == ["a", "b"]
        ((name, refused),) = [(name, each) for name, each in made.observed.items() if each.reason]
        assert (name, refused.phase, refused.reason) == (key("c"), "Ready", "MemoryExceeded")


class TestBudget:
    def test_two_of_three_fit_and_the_third_is_refused_with_numbers(self) -> None:
        made = warming([wanted("a"), wanted("b"), wanted("c", 3 * GiB)], Room(2 * GiB), kept=())
        assert [each.model for each in made.kept] == ["a", "b"]
        assert made.refused[key("c")].message.startswith(
            "to keep it in memory needs 3.0 GiB, and 2 models that are kept there use 2.0 GiB of the pool's memory.budget, "
            "2.0 GiB"
        )

    def test_a_smaller_one_fits_beside_one_that_does_not(self) -> None:
        assert kept(decided([wanted("a", 3 * GiB, held=True), wanted("b")])) == ["b"]

    def test_without_a_budget_nothing_is_kept(self) -> None:
        made = decided([M], budget=0)
        assert kept(made) == []
        assert "more than the pool's memory.budget, 0 B" in str(made.observed[M.key].message)

    def test_on_a_medium_that_is_memory_a_copy_is_in_the_budget_already(self) -> None:
        assert kept(decided([wanted("a"), wanted("b", 5 * GiB)], files=True)) == ["a", "b"]


class TestReleased:
    def test_only_complete_and_whole_copies_are_kept(self) -> None:
        assert kept(decided([M], lying=())) == []
        assert kept(decided([replace(M, revision="rev2")], {M.key: WHOLE})) == []
        assert kept(decided([M], {M.key: WHOLE}, memory=Memory(damaged={M.key: "x"}))) == []

    def test_an_entry_that_goes_or_is_not_to_be_warm_is_released(self) -> None:
        assert kept(decided([], {M.key: WHOLE})) == []
        assert kept(decided([replace(M, warm=None)], {M.key: WHOLE})) == []

    def test_what_is_unknown_releases_nothing(self) -> None:
        assert kept(decided(None, {M.key: WHOLE})) is None
        assert kept(decided([M], {M.key: WHOLE}, problem=Problem("IOError", "x"))) is None
