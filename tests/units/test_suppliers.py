"""Who brings the next range, in simulated time."""

from __future__ import annotations

import pytest

from fetcher.artifact import ORIGIN
from fetcher.planning.suppliers import LONGEST_PAUSE, SAMPLE_AFTER, SAMPLE_AGAIN, SLOW_PAUSE, Choice, Suppliers

NEAR, FAR = "http://near", "http://far"
MiB = 1 << 20


@pytest.fixture
def suppliers() -> Suppliers:
    return Suppliers((NEAR, FAR))


def chosen(suppliers: Suppliers, now: float, path: str = "a", *, among: tuple[str, ...] = (NEAR, FAR)) -> str:
    return suppliers.choose(path, now, among=among).supplier


def test_a_mirror_is_asked_before_the_origin_and_the_one_with_less_to_do_first(suppliers: Suppliers) -> None:
    assert chosen(suppliers, 0.0) == NEAR
    suppliers.opened(NEAR, 0.0)
    assert chosen(suppliers, 0.0) == FAR


def test_only_a_mirror_that_may_have_the_file_is_asked(suppliers: Suppliers) -> None:
    assert chosen(suppliers, 0.0, among=(FAR,)) == FAR
    assert chosen(suppliers, 0.0, among=()) == ORIGIN


def test_the_origin_finishes_the_chunk_that_it_began(suppliers: Suppliers) -> None:
    assert suppliers.choose("a", 0.0, among=(NEAR,), begun=True) == Choice(ORIGIN, one_chunk=True)
    suppliers.failed(ORIGIN, 0.0)
    assert suppliers.choose("a", 0.0, among=(NEAR,), begun=True) == Choice(NEAR, one_chunk=True)


class TestFailures:
    def test_it_is_left_alone_twice_as_long_after_each_failure_up_to_a_minute(self, suppliers: Suppliers) -> None:
        now, pauses = 0.0, []
        for _ in range(8):
            suppliers.failed(NEAR, now)
            began = now
            while chosen(suppliers, now, among=(NEAR,)) == ORIGIN:
                now += 0.5
            pauses.append(now - began)
        assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE]

    def test_it_is_asked_for_one_range_at_first_and_for_more_once_that_came(self, suppliers: Suppliers) -> None:
        suppliers.failed(NEAR, 0.0)
        suppliers.opened(NEAR, 1.0)
        assert chosen(suppliers, 1.0, among=(NEAR,)) == ORIGIN
        suppliers.complete(NEAR)
        assert chosen(suppliers, 1.0, among=(NEAR,)) == NEAR

    def test_it_is_left_alone_as_long_as_it_asks_for_and_no_longer_than_a_minute(self, suppliers: Suppliers) -> None:
        suppliers.failed(NEAR, 0.0, retry_after=7.0)
        assert (chosen(suppliers, 6.9, among=(NEAR,)), chosen(suppliers, 7.0, among=(NEAR,))) == (ORIGIN, NEAR)
        suppliers.failed(NEAR, 10.0, retry_after=1e9)
        assert chosen(suppliers, 10.0 + LONGEST_PAUSE, among=(NEAR,)) == NEAR

    def test_only_the_first_of_many_failures_at_once_is_news(self, suppliers: Suppliers) -> None:
        assert [suppliers.failed(NEAR, 0.0) for _ in range(3)] == [True, False, False]


class TestSamples:
    def sampled(self, suppliers: Suppliers, *, mirror: int, origin: int) -> None:
        """Use a mirror for some seconds, then the origin for as long, at these bytes a second."""
        suppliers.opened(NEAR, 0.0)
        suppliers.came(NEAR, int(mirror * SAMPLE_AFTER), SAMPLE_AFTER)
        assert suppliers.choose("a", SAMPLE_AFTER, among=(NEAR,)) == Choice(ORIGIN, one_chunk=True)
        suppliers.opened(ORIGIN, SAMPLE_AFTER)
        suppliers.came(NEAR, 2 * mirror, SAMPLE_AFTER + 2)
        suppliers.came(ORIGIN, 2 * origin, SAMPLE_AFTER + 2)
        suppliers.ended(ORIGIN, SAMPLE_AFTER + 2)

    def test_a_mirror_of_less_than_half_the_rate_is_left_and_the_user_is_told_once(self, suppliers: Suppliers) -> None:
        self.sampled(suppliers, mirror=MiB, origin=3 * MiB)
        now = SAMPLE_AFTER + 2
        assert suppliers.ends(NEAR, now)
        assert (suppliers.news(NEAR), suppliers.news(NEAR)) == ("a connection to the origin is 3 times as fast", "")
        suppliers.ended(NEAR, now)
        assert chosen(suppliers, now + SLOW_PAUSE - 1, among=(NEAR,)) == ORIGIN
        assert chosen(suppliers, now + SLOW_PAUSE, among=(NEAR,)) == NEAR

    def test_a_mirror_of_more_than_half_the_rate_goes_on(self, suppliers: Suppliers) -> None:
        self.sampled(suppliers, mirror=2 * MiB, origin=3 * MiB)
        assert not suppliers.ends(NEAR, SAMPLE_AFTER + 2)
        assert chosen(suppliers, SAMPLE_AFTER + 2, among=(NEAR,)) == NEAR

    @pytest.mark.parametrize(("times", "left"), [(7, []), (9, [NEAR, FAR])])
    def test_several_mirrors_that_bring_bytes_may_be_slower_together(
        self, suppliers: Suppliers, times: int, left: list[str]
    ) -> None:
        """Each of them has others to send to."""
        for name in (NEAR, FAR):
            suppliers.opened(name, 0.0)
        for begin, gone in ((SAMPLE_AFTER, []), (SAMPLE_AFTER + 1.0 + SAMPLE_AGAIN, left)):  # once may be chance
            assert chosen(suppliers, begin) == ORIGIN
            suppliers.opened(ORIGIN, begin)
            for name, rate in ((NEAR, MiB), (FAR, MiB), (ORIGIN, times * MiB)):
                suppliers.came(name, rate, begin + 1.0)
            suppliers.ended(ORIGIN, begin + 1.0)
            assert [name for name in (NEAR, FAR) if suppliers.ends(name, begin + 1.0)] == gone

    def test_an_origin_that_fails_is_not_sampled(self, suppliers: Suppliers) -> None:
        suppliers.opened(NEAR, 0.0)
        suppliers.failed(ORIGIN, 1.0)
        assert chosen(suppliers, SAMPLE_AFTER, among=(NEAR,)) == NEAR


class TestDisputes:
    def test_a_suspect_is_asked_for_nothing_and_the_origin_brings_the_file(self, suppliers: Suppliers) -> None:
        suppliers.opened(NEAR, 0.0)
        suppliers.disputed("a", {NEAR})
        assert suppliers.ends(NEAR, 0.0)
        assert (chosen(suppliers, 0.0, "a"), chosen(suppliers, 0.0, "b")) == (ORIGIN, FAR)

    def test_a_liar_is_banned_for_good(self, suppliers: Suppliers) -> None:
        suppliers.disputed("a", {NEAR})
        suppliers.judged("a", {NEAR})
        assert chosen(suppliers, 1e9, "b", among=(NEAR,)) == ORIGIN

    def test_others_are_cleared(self, suppliers: Suppliers) -> None:
        suppliers.disputed("a", {NEAR})
        suppliers.disputed("a", {FAR})
        suppliers.judged("a", {FAR})
        assert chosen(suppliers, 0.0, "b") == NEAR
