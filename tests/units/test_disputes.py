"""Who is suspected of a file with a wrong digest, step by step, and who is to blame once it is right."""

from __future__ import annotations

import pytest

from fetcher.artifact import ORIGIN, UNKNOWN
from fetcher.engine.disputes import Disputes, Doubt, by_supplier

A, B, C = "http://a:8650", "http://b:8650", "http://c:8650"
RIGHT = {index: f"right {index}" for index in range(8)}


class File:
    """A file whose chunks mirrors brought; `wrong` are those with other bytes than the origin has."""

    def __init__(self, suppliers: dict[int, str], wrong: set[int]) -> None:
        self.suppliers = suppliers
        self.chunks = {index: "wrong" if index in wrong else text for index, text in RIGHT.items() if index in suppliers}
        self.disputes = Disputes()

    def doubt(self) -> Doubt | None:
        return self.disputes.doubt(self.suppliers, self.chunks)

    def step(self) -> Doubt | None:
        """Fetch from the origin what is in doubt."""
        doubt = self.doubt()
        for supplier, indices in doubt.chunks.items() if doubt else ():
            for index in indices:
                self.disputes.drop(index, supplier, self.chunks[index])
                self.suppliers[index], self.chunks[index] = ORIGIN, RIGHT[index]
        return doubt

    def until_right(self) -> int:
        """Return how many chunks the origin brought until the file was right."""
        steps = 0
        while self.chunks != {index: RIGHT[index] for index in self.chunks}:
            doubt = self.step()
            assert doubt is not None
            steps += sum(map(len, doubt.chunks.values()))
        return steps

    def liars(self) -> set[str]:
        return self.disputes.liars(self.chunks)


@pytest.mark.parametrize(
    ("suppliers", "expected"),
    [
        pytest.param({0: ORIGIN, 1: ORIGIN}, None, id="all from the origin: nobody is in doubt"),
        pytest.param({0: A, 1: ORIGIN, 2: A}, Doubt({A: [0, 2]}, frozenset({A})), id="one mirror: it is suspected"),
        pytest.param(
            {0: A, 1: B, 2: A, 3: C, 4: B}, Doubt({A: [0], B: [1], C: [3]}, frozenset()),
            id="several: a chunk of each, and nobody is suspected yet",
        ),
        pytest.param({0: UNKNOWN, 1: UNKNOWN}, Doubt({UNKNOWN: [0, 1]}, frozenset({UNKNOWN})), id="an earlier attempt"),
    ],
)  # fmt: skip
def test_the_first_step(suppliers: dict[int, str], expected: Doubt | None) -> None:
    assert File(suppliers, {0}).doubt() == expected


def test_after_the_first_step_all_of_a_mirror_whose_chunk_was_another_one() -> None:
    file = File({0: A, 1: B, 2: B, 3: A, 4: B}, {1, 2, 4})
    file.step()
    assert file.doubt() == Doubt({B: [2, 4]}, frozenset({B}))


def test_of_two_liars_both() -> None:
    file = File({0: A, 1: B, 2: C, 3: A, 4: B, 5: C}, {0, 1, 3, 4})
    file.step()
    assert file.doubt() == Doubt({A: [3], B: [4]}, frozenset({A, B}))
    assert (file.until_right(), file.liars()) == (2, {A, B})


def test_a_mirror_that_lies_now_and_then_is_found_by_all_of_its_chunks_the_fewest_first() -> None:
    file = File({0: A, 1: B, 2: B, 3: A, 4: B}, {4})
    file.step()
    assert file.doubt() == Doubt({A: [3]}, frozenset({A}))
    file.step()
    assert file.doubt() == Doubt({B: [2, 4]}, frozenset({B}))
    assert (file.until_right(), file.liars()) == (2, {B})


def test_a_liar_that_brought_most_of_a_file_costs_a_chunk_of_each_other_mirror() -> None:
    file = File({0: A, 1: B, 2: C, 3: C, 4: B, 5: C, 6: C, 7: A}, {2, 3, 5, 6})
    assert file.until_right() == 2 + 4
    assert file.liars() == {C}


def test_nobody_is_to_blame_for_what_an_earlier_attempt_brought() -> None:
    file = File({0: UNKNOWN, 1: A}, {0})
    file.until_right()
    assert file.liars() == set()


def test_every_step_brings_more_of_the_file_from_the_origin() -> None:
    file = File({0: A, 1: B, 2: C, 3: UNKNOWN, 4: B, 5: C, 6: ORIGIN, 7: A}, {6})
    while file.doubt() is not None:
        before = sum(map(len, by_supplier(file.suppliers).values()))
        file.step()
        assert sum(map(len, by_supplier(file.suppliers).values())) < before
