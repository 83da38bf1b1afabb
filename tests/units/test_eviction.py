"""Which artifacts make room: the decision alone, without a filesystem."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fetcher.planning.eviction import Bounds, Resident, freed, least_recently_used, occupied


def artifact(key: str, size: int = 10, *, used: float = 0.0, **more: object) -> Resident:
    return replace(Resident(key, {key: size}, used), **more)  # type: ignore[arg-type]


def keys(victims: tuple[Resident, ...] | None) -> list[str] | None:
    return None if victims is None else sorted(each.key for each in victims)


class TestOrder:
    def test_the_least_recently_used_goes_first(self) -> None:
        residents = [artifact("new", used=3.0), artifact("old", used=1.0), artifact("middle", used=2.0)]
        assert keys(least_recently_used(residents, lambda made: made >= 15)) == ["middle", "old"]

    def test_nothing_goes_if_nothing_is_needed(self) -> None:
        assert keys(least_recently_used([artifact("a")], lambda made: made >= 0)) == []

    def test_an_early_victim_is_spared_if_a_later_one_suffices_alone(self) -> None:
        residents = [artifact("small", 1, used=1.0), artifact("large", 100, used=2.0)]
        assert keys(least_recently_used(residents, lambda made: made >= 50)) == ["large"]

    def test_a_lower_rank_goes_first_although_it_was_used_later(self) -> None:
        residents = [artifact("old", used=1.0), artifact("orphan", used=9.0, rank=-1)]
        assert keys(least_recently_used(residents, lambda made: made >= 5)) == ["orphan"]

    def test_of_victims_that_suffice_alone_the_higher_rank_is_spared(self) -> None:
        residents = [artifact("small", 1, used=9.0, rank=-2), artifact("orphan", 50, used=9.0, rank=-1), artifact("old", 50)]
        assert keys(least_recently_used(residents, lambda made: made >= 50)) == ["orphan"]

    def test_what_is_kept_is_no_victim(self) -> None:
        residents = [artifact("a", kept="pinned"), artifact("b", kept="open"), artifact("c", used=9.0)]
        assert keys(least_recently_used(residents, lambda made: made >= 5)) == ["c"]

    def test_without_enough_victims_there_are_none(self) -> None:
        assert least_recently_used([artifact("a"), artifact("b", kept="held")], lambda made: made >= 15) is None


class TestSharing:
    SHARED = Resident("a", {"shared": 100, "a": 1}, 1.0), Resident("b", {"shared": 100, "b": 1}, 2.0)

    def test_shared_bytes_count_once(self) -> None:
        assert occupied(self.SHARED) == 102

    def test_a_victim_frees_only_what_no_survivor_shares(self) -> None:
        assert freed([self.SHARED[0]], self.SHARED) == 1
        assert freed(self.SHARED, self.SHARED) == 102

    def test_both_go_if_the_shared_bytes_are_needed(self) -> None:
        assert keys(least_recently_used(self.SHARED, lambda made: made >= 50)) == ["a", "b"]

    def test_nothing_goes_if_a_kept_artifact_shares_what_is_needed(self) -> None:
        residents = [self.SHARED[0], replace(self.SHARED[1], kept="pinned")]
        assert least_recently_used(residents, lambda made: made >= 50) is None


class TestBounds:
    def test_what_fits_needs_no_room(self) -> None:
        assert Bounds(max_size=100, min_free=10).shortfall(needed=20, used=80, free=30) == 0

    def test_the_larger_shortfall_counts(self) -> None:
        assert Bounds(max_size=100, min_free=10).shortfall(needed=20, used=90, free=15) == 15
        assert Bounds(max_size=90, min_free=10).shortfall(needed=20, used=90, free=25) == 20

    def test_a_filesystem_that_does_not_tell_its_free_space_limits_nothing(self) -> None:
        assert Bounds(min_free=10).shortfall(needed=20, used=0, free=None) == 0


RESIDENTS = st.lists(
    st.builds(
        Resident,
        st.uuids().map(str),
        st.dictionaries(st.integers(0, 5), st.just(7), max_size=3),
        st.floats(0, 10),
        st.sampled_from([None, None, "pinned", "open"]),
    ),
    max_size=8,
    unique_by=lambda each: each.key,
)


class TestAlways:
    @given(RESIDENTS, st.integers(0, 60))
    def test_victims_suffice_are_free_to_go_and_none_is_needless(self, residents: list[Resident], needed: int) -> None:
        victims = least_recently_used(residents, lambda made: made >= needed)
        movable = [each for each in residents if each.kept is None]
        if victims is None:
            assert freed(movable, residents) < needed
            return
        assert freed(victims, residents) >= needed
        assert all(each.kept is None for each in victims)
        for spared in victims:
            assert freed([each for each in victims if each is not spared], residents) < needed


class Cache(RuleBasedStateMachine):
    """A cache that fetches, uses, pins, opens and evicts. It never exceeds its limit and never loses what is kept."""

    LIMIT = 100

    def __init__(self) -> None:
        super().__init__()
        self.residents: dict[str, Resident] = {}
        self.clock = 0.0
        self.number = 0

    @rule(size=st.integers(1, 60))
    def fetch(self, size: int) -> None:
        self.clock += 1
        before = dict(self.residents)
        used = occupied(before.values())
        limit = Bounds(max_size=self.LIMIT)
        victims = least_recently_used(
            list(before.values()), lambda made: limit.shortfall(needed=size, used=used - made, free=None) == 0
        )
        if victims is None:
            assert sum(each.blocks[each.key] for each in before.values() if each.kept) + size > self.LIMIT
            return
        for each in victims:
            assert before[each.key].kept is None
            del self.residents[each.key]
        self.number += 1
        self.residents[str(self.number)] = artifact(str(self.number), size, used=self.clock)

    @precondition(lambda self: self.residents)
    @rule(data=st.data(), kept=st.sampled_from([None, "pinned", "open", "held"]))
    def keep(self, data: st.DataObject, kept: str | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.residents)))
        self.residents[key] = replace(self.residents[key], kept=kept)  # type: ignore[arg-type]

    @precondition(lambda self: self.residents)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        self.clock += 1
        key = data.draw(st.sampled_from(sorted(self.residents)))
        self.residents[key] = replace(self.residents[key], last_used=self.clock)

    @invariant()
    def within_the_limit(self) -> None:
        assert occupied(self.residents.values()) <= self.LIMIT


TestCache = Cache.TestCase
