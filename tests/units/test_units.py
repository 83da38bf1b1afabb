"""How an artifact is divided among the parts of a cooperative fetch."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fetcher.artifact import RemoteFile
from fetcher.errors import ConfigurationError
from fetcher.planning.units import UNITS_PER_PART, in_turn, units_of
from fetcher.settings import Part, parse_part

MiB = 1024 * 1024
FILES = st.lists(
    st.builds(RemoteFile, st.text("abc/.", min_size=1, max_size=6), st.none() | st.integers(0, 1 << 40)),
    max_size=40,
    unique_by=lambda file: file.path,
)


class TestUnits:
    @given(FILES, st.integers(1, 9))
    def test_every_file_is_in_exactly_one_unit_and_no_unit_is_empty(self, files: list[RemoteFile], parts: int) -> None:
        units = units_of(files, parts)
        assert sorted(path for unit in units for path in unit) == sorted(file.path for file in files)
        assert all(units)
        assert len(units) == min(len(files), parts * UNITS_PER_PART)

    @given(FILES, st.randoms(use_true_random=False))
    def test_the_order_of_the_listing_does_not_matter(self, files: list[RemoteFile], random: object) -> None:
        shuffled = sorted(files, key=lambda file: hash((file.path, id(random))))
        assert units_of(files, 4) == units_of(shuffled, 4)

    @given(FILES, st.integers(1, 9))
    def test_no_unit_is_larger_than_a_fair_share_and_the_largest_file(self, files: list[RemoteFile], parts: int) -> None:
        sizes = {file.path: file.size or 0 for file in files}
        units = units_of(files, parts)
        fair = sum(sizes.values()) / max(1, len(units)) + max(sizes.values(), default=0)
        assert all(sum(sizes[path] for path in unit) <= fair for unit in units)

    def test_many_empty_files_are_spread(self) -> None:
        units = units_of([RemoteFile(f"{number:03}", 0) for number in range(80)], 4)
        assert {len(unit) for unit in units} == {5}


class TestTurns:
    @given(st.integers(1, 40), st.integers(1, 9), st.data())
    def test_a_part_wants_its_own_units_first_and_then_all_others(self, number: int, count: int, data: st.DataObject) -> None:
        part = Part(data.draw(st.integers(0, count - 1)), count)
        order = in_turn(range(number), part)
        own = [index for index in range(number) if index % count == part.index]
        assert sorted(order[: len(own)]) == own
        assert sorted(order) == list(range(number))


class TestParsing:
    def test_a_part_is_written_with_its_count(self) -> None:
        assert parse_part("0/4") == Part(0, 4)
        assert parse_part(" 3/4 ") == Part(3, 4)

    @pytest.mark.parametrize("text", ["4/4", "0/0", "-1/4", "1", "1/", "/4", "a/b", "1/2/3", ""])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match="I/N"):
            parse_part(text)
