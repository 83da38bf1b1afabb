"""A few threads process pieces in order; the first error stops them."""

from __future__ import annotations

import threading

import pytest

from loader.workers import default_threads, run_on_threads

pytestmark = pytest.mark.page_cache


def test_every_piece_is_processed_once() -> None:
    done: list[int] = []
    run_on_threads(range(1000), done.append, threads=7)
    assert sorted(done) == list(range(1000))


def test_pieces_are_started_in_order() -> None:
    done: list[int] = []
    run_on_threads(range(100), done.append, threads=1)
    assert done == list(range(100))


def test_all_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def work(_: int) -> None:
        together.wait(timeout=20)

    run_on_threads(range(9), work, threads=3)


def test_no_piece_is_started_after_an_error() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        run_on_threads(range(1000), work, threads=1)
    assert started == [0, 1, 2, 3]


def test_an_error_of_the_iterator_of_pieces_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run_on_threads((1 // number for number in (1, 0)), lambda _: None, threads=4)


def test_no_pieces_need_no_work() -> None:
    run_on_threads([], lambda _: pytest.fail("there are no pieces"), threads=4)


def test_the_default_number_of_threads_is_between_four_and_sixteen() -> None:
    assert 4 <= default_threads() <= 16
    assert 1 <= default_threads(busy=True) <= 16
    assert default_threads(network=True) == 16
