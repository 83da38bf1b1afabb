"""How an artifact is divided among the parts of a cooperative fetch."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fetcher.artifact import CHUNK_SIZE, ByteRange, RemoteFile
from fetcher.errors import ConfigurationError
from fetcher.planning.units import Unit, in_turn, units_of
from fetcher.settings import Part, parse_part

MiB = 1024 * 1024
FILES = st.lists(
    st.builds(
        RemoteFile,
        st.text("abc/.", min_size=1, max_size=6),
        st.none() | st.integers(0, 1 << 30) | st.integers(0, 1 << 36),
        validator=st.sampled_from([None, "etag"]),
        ranges=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda file: file.path,
)


def bytes_of(unit: Unit, files: list[RemoteFile]) -> int:
    if unit.segment is not None:
        return len(unit.segment)
    return sum(file.size or 0 for file in files if file.path in unit.paths)


class TestUnits:
    @given(FILES, st.integers(1, 9))
    def test_every_byte_of_every_file_is_in_exactly_one_unit_and_no_unit_is_empty(
        self, files: list[RemoteFile], parts: int
    ) -> None:
        units = units_of(files, parts)
        cut = {unit.paths[0] for unit in units if unit.segment is not None}
        whole = [path for unit in units if unit.segment is None for path in unit.paths]
        assert sorted([*whole, *cut]) == sorted(file.path for file in files)
        assert all(unit.paths for unit in units)
        for file in files:
            segments = [unit.segment for unit in units if unit.paths == (file.path,) and unit.segment]
            ends = [0, *(segment.stop for segment in segments)]
            assert [segment.start for segment in segments] == ends[:-1]
            assert file.path not in cut or ends[-1] == file.size

    @given(FILES, st.integers(1, 9))
    def test_a_file_is_cut_only_if_it_is_larger_than_the_share_of_a_part(self, files: list[RemoteFile], parts: int) -> None:
        sizes = {file.path: file.size or 0 for file in files}
        for unit in units_of(files, parts):
            if unit.segment is not None:
                assert sizes[unit.paths[0]] > sum(sizes.values()) // parts
                assert unit.segment.start % CHUNK_SIZE == 0

    @pytest.mark.parametrize(
        "file",
        [RemoteFile("a", 1 << 30), RemoteFile("a", None, validator="x"), RemoteFile("a", 1 << 30, validator="x", ranges=False)],
        ids=["no identity", "no size", "no ranges"],
    )
    def test_a_file_whose_parts_cannot_be_trusted_or_asked_for_stays_whole(self, file: RemoteFile) -> None:
        assert units_of([file], 4) == (Unit(("a",)),)

    def test_a_file_that_is_held_already_stays_whole(self) -> None:
        assert units_of([RemoteFile("a", 1 << 30, validator="x")], 4, held={"a"}) == (Unit(("a",)),)

    def test_one_large_file_gives_every_part_four_segments(self) -> None:
        units = units_of([RemoteFile("a", 16 * CHUNK_SIZE, validator="x")], 4)
        assert [unit.segment for unit in units] == [ByteRange(n * CHUNK_SIZE, (n + 1) * CHUNK_SIZE) for n in range(16)]

    @given(FILES, st.randoms(use_true_random=False))
    def test_the_order_of_the_listing_does_not_matter(self, files: list[RemoteFile], random: object) -> None:
        shuffled = sorted(files, key=lambda file: hash((file.path, id(random))))
        assert units_of(files, 4) == units_of(shuffled, 4)

    @given(FILES, st.integers(1, 9))
    def test_no_unit_is_larger_than_a_fair_share_and_the_largest_file(self, files: list[RemoteFile], parts: int) -> None:
        sizes = {file.path: file.size or 0 for file in files}
        units = units_of(files, parts)
        fair = sum(sizes.values()) / max(1, len(units)) + max(sizes.values(), default=0)
        assert all(bytes_of(unit, files) <= fair for unit in units)

    def test_many_empty_files_are_spread(self) -> None:
        units = units_of([RemoteFile(f"{number:03}", 0) for number in range(80)], 4)
        assert {len(unit.paths) for unit in units} == {5}


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
