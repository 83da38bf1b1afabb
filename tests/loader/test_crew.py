"""A few threads take pieces in order; the first error ends it."""

from __future__ import annotations

import threading

import pytest

from loader.workers import default_threads, each

pytestmark = pytest.mark.page_cache


def test_every_piece_is_worked_on_once() -> None:
    done: list[int] = []
    each(range(1000), done.append, threads=7)
    assert sorted(done) == list(range(1000))


def test_pieces_are_begun_in_order() -> None:
    done: list[int] = []
    each(range(100), done.append, threads=1)
    assert done == list(range(100))


def test_so_many_are_under_way_at_once_and_no_more() -> None:
    together = threading.Barrier(3)

    def work(_: int) -> None:
        together.wait(timeout=20)

    each(range(9), work, threads=3)


def test_after_an_error_nothing_new_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        each(range(1000), work, threads=1)
    assert begun == [0, 1, 2, 3]


def test_an_error_of_what_makes_the_pieces_is_raised_too() -> None:
    with pytest.raises(ZeroDivisionError):
        each((1 // number for number in (1, 0)), lambda _: None, threads=4)


def test_nothing_to_do_is_done() -> None:
    each([], lambda _: pytest.fail("there is nothing to do"), threads=4)


def test_there_are_always_a_few() -> None:
    assert 4 <= default_threads() <= 16
    assert 1 <= default_threads(busy=True) <= 16
    assert default_threads(network=True) == 16
