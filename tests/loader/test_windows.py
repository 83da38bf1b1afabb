"""Windows cover each byte once, in order; ranks get equal parts; the first windows that fit in memory are used."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.host.memory import Bound
from loader.errors import TooLarge
from loader.kernel import PAGE
from loader.residency.warming import bytes_in, what_fits
from loader.residency.windows import WIDEST, Window, fitting, joined, room_for, share, width_for, windows

sizes = st.lists(st.integers(0, 40 * PAGE), max_size=8)
widths = st.integers(1, 8).map(lambda pages: pages * PAGE)


@given(sizes, widths)
def test_each_byte_of_each_file_is_in_one_window_in_order(files: list[int], width: int) -> None:
    plan = list(windows(files, width=width))
    for number, size in enumerate(files):
        parts = [window.part for window in plan if window.number == number]
        assert [byte for part in parts for byte in (part.start, part.stop)] == _bounds(size, width)
    assert plan == sorted(plan, key=lambda window: (window.number, window.part))
    assert all(window.part.start % PAGE == 0 and 0 < window.size <= width for window in plan)


def _bounds(size: int, width: int) -> list[int]:
    return list(chain.from_iterable((start, min(start + width, size)) for start in range(0, size, width)))


@given(sizes, widths, st.integers(1, 9))
def test_each_window_belongs_to_one_rank_and_the_parts_are_equal(files: list[int], width: int, ranks: int) -> None:
    plan = tuple(windows(files, width=width))
    parts = [share(plan, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert sorted(chain.from_iterable(parts), key=plan.index) == list(plan)
    loads = [bytes_in(part) for part in parts]
    assert max(loads) - min(loads) <= width


@given(sizes, widths, st.integers(1, 9), st.integers(0, 400 * PAGE))
def test_a_shorter_plan_gives_each_rank_the_same_first_windows(files: list[int], width: int, ranks: int, left: int) -> None:
    plan = tuple(windows(files, width=width))
    for rank in range(ranks):
        whole, cut = share(plan, rank=rank, ranks=ranks), share(fitting(plan, left), rank=rank, ranks=ranks)
        assert whole[: len(cut)] == cut


@given(st.integers(0, 1 << 45), st.integers(1, 64))
def test_windows_are_whole_pages_of_bounded_width(total: int, ranks: int) -> None:
    width = width_for(total, ranks)
    assert width % PAGE == 0
    assert 0 < width <= WIDEST


@given(sizes, widths, st.integers(0, 400 * PAGE))
def test_as_many_first_windows_are_taken_as_fit(files: list[int], width: int, left: int) -> None:
    plan = tuple(windows(files, width=width))
    fitted = fitting(plan, left)
    assert plan[: len(fitted)] == fitted
    assert room_for(bytes_in(fitted)) <= left
    assert len(fitted) == len(plan) or room_for(bytes_in(plan[: len(fitted) + 1])) > left


@given(sizes, widths)
def test_only_adjacent_windows_of_a_file_are_joined(files: list[int], width: int) -> None:
    plan = tuple(windows(files, width=width))
    assert [window.size for window in joined(plan)] == [size for size in files if size]
    assert bytes_in(tuple(joined(plan[::2]))) == bytes_in(plan[::2])


PLAN = tuple(windows([4 * PAGE], width=PAGE))


class TestRefusal:
    def test_the_error_has_the_numbers_and_the_remedy(self) -> None:
        with pytest.raises(
            TooLarge,
            match=r"^cannot keep 16\.0 KiB .* room for 9\.8 KiB \(cgroup /pod\); .* 8\.0 KiB with `loader warm --partial`$",
        ):
            what_fits(PLAN, Bound(10_000, "cgroup /pod"), partial=False)

    def test_partial_takes_the_windows_that_fit(self) -> None:
        assert what_fits(PLAN, Bound(10_000, ""), partial=True) == PLAN[:2]

    def test_partial_is_refused_if_no_window_fits(self) -> None:
        with pytest.raises(TooLarge, match=r"\(cgroup /pod\); raise that limit$"):
            what_fits(PLAN, Bound(PAGE, "cgroup /pod"), partial=True)

    def test_an_empty_plan_always_fits(self) -> None:
        assert what_fits((), Bound(0, ""), partial=False) == ()

    def test_windows_compare_by_value(self) -> None:
        assert Window(0, PLAN[0].part) == PLAN[0]
