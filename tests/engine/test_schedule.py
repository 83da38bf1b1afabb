"""The next range: files take turns and are read front to back, idle connections steal from the slowest range."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.engine.schedule import OPEN, WORTH, Assignment, Progress, Schedule
from fetcher.planning.ranges import missing_ranges

CHUNKS = st.integers(1, 12)


def chunks(count: int, *, first: int = 0) -> list[ByteRange | None]:
    return [ByteRange(index * CHUNK_SIZE, (index + 1) * CHUNK_SIZE) for index in range(first, first + count)]


def scheduled(**files: int) -> Schedule:
    """A schedule of files with these numbers of chunks."""
    schedule = Schedule()
    for path, count in files.items():
        schedule.add(path, chunks(count), size=count * CHUNK_SIZE)
    return schedule


def taken(schedule: Schedule, count: int) -> list[Assignment]:
    return [assignment for _ in range(count) if (assignment := schedule.assign())]


class TestTurns:
    def test_ranges_of_a_file_are_assigned_front_to_back(self) -> None:
        schedule = scheduled(a=4)
        assert [each.start for each in taken(schedule, 9)] == [index * CHUNK_SIZE for index in range(4)]

    def test_files_take_turns_and_larger_files_are_first(self) -> None:
        assert [each.path for each in taken(scheduled(a=2, b=3, c=2), 7)] == ["b", "a", "c", "b", "a", "c", "b"]

    def test_the_file_with_the_fewest_active_ranges_is_next(self) -> None:
        schedule = scheduled(a=5, b=5)
        first, *_ = taken(schedule, 4)
        schedule.finish(first)
        assert [each.path for each in taken(schedule, 1)] == [first.path]

    def test_as_many_files_are_open_as_are_hashed_together(self) -> None:
        schedule = scheduled(**{f"file-{number:03d}": 3 for number in range(5 * OPEN)})
        assert len({each.path for each in taken(schedule, 2 * OPEN)}) == OPEN

    def test_a_returned_range_is_assigned_again_in_order(self) -> None:
        schedule = scheduled(a=3)
        first, second = taken(schedule, 2)
        for each in (second, first):
            schedule.finish(each)
            schedule.add("a", [ByteRange(each.start + 5, each.stop or 0)], size=3 * CHUNK_SIZE)
        assert [each.start for each in taken(schedule, 3)] == [5, CHUNK_SIZE + 5, 2 * CHUNK_SIZE]

    def test_a_file_without_ranges_is_one_assignment(self) -> None:
        schedule = Schedule()
        schedule.add("a", [None], size=0)
        assert [(each.start, each.stop) for each in taken(schedule, 2)] == [(0, None)]

    def test_a_cleared_range_is_assigned_only_if_added_again(self) -> None:
        schedule = scheduled(a=3)
        schedule.clear("a")
        assert schedule.assign() is None
        schedule.add("a", chunks(1), size=CHUNK_SIZE)
        assert schedule.assign() is not None

    @given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), CHUNKS, max_size=30))
    def test_every_byte_is_assigned_once(self, files: dict[str, int]) -> None:
        everything = [(each.path, each.start, each.stop) for each in taken(scheduled(**files), 1000)]
        wanted = [(path, part.start, part.stop) for path, count in files.items() for part in chunks(count) if part]
        assert sorted(everything) == sorted(wanted)

    def test_the_schedule_counts_pending_bytes(self) -> None:
        schedule = scheduled(a=3, b=2)
        assert schedule.missing == 5 * CHUNK_SIZE
        assignment = schedule.assign(longest=CHUNK_SIZE)
        assert assignment is not None
        assert schedule.missing == 4 * CHUNK_SIZE
        schedule.finish(assignment)
        schedule.add("a", [ByteRange(7, CHUNK_SIZE)], size=3 * CHUNK_SIZE)
        assert schedule.missing == 5 * CHUNK_SIZE - 7
        schedule.clear("a")
        assert schedule.missing == 2 * CHUNK_SIZE


class TestLength:
    @given(st.integers(1, 40 * CHUNK_SIZE), st.integers(0, 10 * CHUNK_SIZE), st.lists(st.integers(1, 5 * CHUNK_SIZE)))
    def test_an_assignment_is_whole_chunks_up_to_the_longest_length(self, size: int, start: int, lengths: list[int]) -> None:
        """Except the first and the last range. No range is shorter than the rest of one chunk."""
        schedule, position = Schedule(), min(start, size - 1)
        schedule.add("a", [ByteRange(position, size)], size=size)
        for length in [*lengths, *[size] * 2]:
            assignment = schedule.assign(longest=length)
            if assignment is None:
                break
            stop = assignment.stop or 0
            assert assignment.start == position
            assert stop == size or stop % CHUNK_SIZE == 0
            assert stop - position <= length or stop - position <= CHUNK_SIZE
            position = stop
        assert position == size


class TestLagging:
    def test_only_a_file_without_active_ranges_gets_a_range(self) -> None:
        schedule = scheduled(a=3, b=3)
        first = schedule.assign()
        assert first is not None
        second = schedule.assign(lagging=True)
        assert second is not None
        assert second.path != first.path
        assert schedule.assign(lagging=True) is None

    @given(st.dictionaries(st.text("abc", min_size=1, max_size=2), CHUNKS, min_size=1), st.integers(1, 8))
    def test_the_schedule_never_deadlocks(self, files: dict[str, int], connections: int) -> None:
        schedule, active, handed_out = scheduled(**files), list[Assignment](), 0
        while True:
            while len(active) < connections and (assignment := schedule.assign(lagging=True)):
                active.append(assignment)
                handed_out += 1
            if not active:
                break
            schedule.finish(active.pop(0))
        assert handed_out == sum(files.values())


class TestStealing:
    def assigned(self, schedule: Schedule, length: int) -> Assignment:
        schedule.add("a", [ByteRange(0, length)], size=length)
        assignment = schedule.assign()
        assert assignment is not None
        return assignment

    def test_an_idle_connection_steals_the_later_half_from_a_chunk_boundary_on(self) -> None:
        schedule = Schedule()
        first = self.assigned(schedule, 8 * CHUNK_SIZE)
        second = schedule.steal([Progress(first, 2 * CHUNK_SIZE + 17, rate=1e6)])
        assert second is not None
        assert (first.stop, second.start, second.stop) == (6 * CHUNK_SIZE, 6 * CHUNK_SIZE, 8 * CHUNK_SIZE)
        assert schedule.active("a") == 2

    def test_the_range_that_would_last_longest_is_stolen_from(self) -> None:
        schedule = scheduled(a=1, b=1)
        fast, slow = Assignment("a", 0, 40 * CHUNK_SIZE), Assignment("b", 0, 10 * CHUNK_SIZE)
        second = schedule.steal([Progress(fast, 0, rate=100e6), Progress(slow, 0, rate=1e6)])
        assert second is not None
        assert second.path == "b"

    def test_a_range_that_ends_soon_is_not_stolen_from(self) -> None:
        schedule = Schedule()
        first = self.assigned(schedule, 8 * CHUNK_SIZE)
        assert schedule.steal([Progress(first, 0, rate=8 * CHUNK_SIZE / WORTH * 1.01)]) is None
        assert first.stop == 8 * CHUNK_SIZE

    def test_a_single_chunk_is_never_split(self) -> None:
        schedule = Schedule()
        first = self.assigned(schedule, CHUNK_SIZE)
        assert schedule.steal([Progress(first, 5, rate=1.0)]) is None

    def test_a_file_without_ranges_is_never_split(self) -> None:
        schedule = Schedule()
        schedule.add("a", [None], size=0)
        first = schedule.assign()
        assert first is not None
        assert schedule.steal([Progress(first, 5, rate=1.0)]) is None

    @given(st.integers(1, 100 * CHUNK_SIZE), st.data())
    def test_both_halves_together_are_the_whole_range(self, length: int, data: st.DataObject) -> None:
        schedule = Schedule()
        first = self.assigned(schedule, length)
        position = data.draw(st.integers(0, length - 1))
        second = schedule.steal([Progress(first, position, rate=1.0)])
        if second is None:
            assert first.stop == length
            assert position // CHUNK_SIZE == (length - 1) // CHUNK_SIZE or length - position < WORTH
        else:
            assert (first.stop, second.stop) == (second.start, length)
            assert position < second.start < length
            assert second.start % CHUNK_SIZE == 0


@given(st.integers(1, 40 * CHUNK_SIZE), st.sets(st.integers(0, 40)))
def test_missing_ranges_are_exactly_the_chunks_that_are_not_held(size: int, held: set[int]) -> None:
    found = list(missing_ranges(size, held=held))
    covered = {index for part in found for index in range(part.start // CHUNK_SIZE, -(-part.stop // CHUNK_SIZE))}
    assert covered == {index for index in range(-(-size // CHUNK_SIZE)) if index not in held}
    assert all(before.stop < after.start for before, after in itertools.pairwise(found))
