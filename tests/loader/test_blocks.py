"""Adjacent jobs are read together, up to a size; every requested byte is read, in the given order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loader.kernel import PAGE
from loader.reading.blocks import HUGE, PIECE, Block, Job, Source, blocks

KiB = 1024
SIZE = 256 * KiB


class Named:
    """A file that is never opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> int:
        raise NotImplementedError

    def check(self, descriptor: int) -> None:
        raise NotImplementedError


A, B = Named("a"), Named("b")

offsets = st.integers(0, 2**20)
lengths = st.one_of(st.just(0), st.integers(0, 100 * KiB), st.integers(0, 3 * SIZE))
jobs_anywhere = st.lists(st.builds(Job, st.sampled_from([A, B]), offsets, lengths), max_size=40)


@st.composite
def neighbours(draw: st.DrawFn) -> list[Job]:
    """As in a checkpoint: one behind the other, sometimes with a gap, file after file."""
    jobs = []
    for source in (A, B):
        position = draw(offsets)
        for length, gap in draw(
            st.lists(st.tuples(lengths, st.sampled_from([0, 0, 0, 1, 64 * KiB, 64 * KiB + 1])), max_size=20)
        ):
            jobs.append(Job(source, position, length))
            position += length + gap
    return jobs


job_lists = st.one_of(jobs_anywhere, neighbours())


class TestBlocks:
    @given(job_lists)
    def test_blocks_hold_the_jobs_in_order(self, jobs: list[Job]) -> None:
        assert [job for block in blocks(jobs, SIZE, first=SIZE) for job in block.jobs] == jobs

    @given(job_lists)
    def test_a_block_contains_every_byte_of_its_jobs(self, jobs: list[Job]) -> None:
        for block in blocks(jobs, SIZE, first=SIZE):
            for job in block.jobs:
                assert job.source is block.source
                assert job.length == 0 or block.start <= job.offset <= job.stop <= block.stop

    @given(job_lists)
    def test_a_block_exceeds_the_size_only_for_a_single_larger_job(self, jobs: list[Job]) -> None:
        for block in blocks(jobs, SIZE, first=SIZE):
            assert block.stop - block.start <= max(SIZE, *(job.length for job in block.jobs))

    @given(job_lists)
    def test_only_small_gaps_are_read_as_well(self, jobs: list[Job]) -> None:
        for block in blocks(jobs, SIZE, first=SIZE):
            assert sum(job.length for job in block.jobs) >= (block.stop - block.start) - 64 * KiB * (len(block.jobs) - 1)

    def test_adjacent_jobs_are_read_together_up_to_the_size(self) -> None:
        jobs = [Job(A, number * 8 * KiB, 8 * KiB) for number in range(64)]
        assert [(block.start, block.stop) for block in blocks(jobs, SIZE, first=SIZE)] == [(0, SIZE), (SIZE, 2 * SIZE)]

    def test_each_file_has_its_own_blocks(self) -> None:
        assert [block.source for block in blocks([Job(A, 0, 5), Job(B, 5, 5), Job(A, 5, 5)], SIZE, first=SIZE)] == [A, B, A]

    def test_a_large_gap_starts_another_block(self) -> None:
        assert len(list(blocks([Job(A, 0, 5), Job(A, 70 * KiB, 5)], SIZE, first=SIZE))) == 2

    def test_going_back_in_the_file_starts_another_block(self) -> None:
        assert len(list(blocks([Job(A, 10, 5), Job(A, 14, 5)], SIZE, first=SIZE))) == 2

    def test_empty_jobs_do_not_extend_a_block(self) -> None:
        (block,) = blocks([Job(A, 10**9, 0), Job(A, 7, 5), Job(A, 3, 0)], SIZE, first=SIZE)
        assert (block.start, block.stop) == (7, 12)

    def test_the_first_blocks_are_small(self) -> None:
        jobs = [Job(A, number * KiB, KiB) for number in range(64)]
        lengths = [block.stop - block.start for block in blocks(jobs, 16 * KiB, first=2 * KiB)]
        assert lengths == [2 * KiB, 4 * KiB, 8 * KiB, 16 * KiB, 16 * KiB, 16 * KiB, 2 * KiB]


ranges = st.tuples(st.integers(0, 3 * PIECE), st.integers(0, 3 * PIECE)).map(lambda pair: Block(A, pair[0], sum(pair)))


class TestMemory:
    @given(ranges)
    def test_the_memory_of_a_block_holds_whole_pages(self, block: Block) -> None:
        assert block.origin % PAGE == block.span % PAGE == block.footprint % HUGE == 0
        assert block.origin <= block.start < block.origin + PAGE
        assert block.span <= block.footprint < block.span + HUGE
        if block.stop > block.start:
            assert block.stop <= block.origin + block.span < block.stop + PAGE
        else:
            assert block.span == 0

    @given(ranges)
    def test_pieces_cover_the_block_and_share_no_page(self, block: Block) -> None:
        pieces = list(block.pieces())
        edges = [start for start, _ in pieces] + [block.stop]
        assert edges == [block.start] + [stop for _, stop in pieces]
        assert all(edge % PAGE == 0 for edge in edges[1:-1])
        assert all(0 < stop - start <= PIECE for start, stop in pieces)


def test_any_object_that_can_be_opened_and_checked_is_a_source() -> None:
    source: Source = A
    assert source.path == "a"
