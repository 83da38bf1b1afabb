"""Jobs are delivered in order, within the window, and no thread or descriptor is left, however the reading ends."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetcher.errors import NotFound
from loader.kernel import PAGE
from loader.reading.arena import Arena
from loader.reading.blocks import HUGE, PIECE, Job
from loader.reading.reader import Reading, read, read_all
from loader.reading.strategy import Strategy
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until
from tests.loader.conftest import MiB, make_cold, open_shards, readers, written
from tests.loader.sources import Plain, expected

MODES: tuple[Strategy, ...] = ("buffered", "direct", "mmap")
pytestmark = [pytest.mark.page_cache, pytest.mark.usefixtures("nothing_left_behind")]
every_mode = pytest.mark.parametrize("mode", MODES)
SIZE = 3 * PIECE + 12_345


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Plain]:
    """Two files on the disk: one of several pieces, one smaller than a page."""
    directory = tmp_path_factory.mktemp("shards")
    return [Plain.at(written(directory / f"{size}.safetensors", size)) for size in (SIZE, 777)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """40 MiB: far more than a window of 2 or 4 MiB."""
    return Plain.at(written(tmp_path_factory.mktemp("large") / "large.safetensors", 40 * MiB))


def contents(reading: Reading) -> list[bytes]:
    return [bytes(view) for _, view in reading]


class TestContent:
    @every_mode
    def test_small_and_large_jobs_are_delivered_in_order(self, sources: list[Plain], mode: Strategy) -> None:
        large, small = sources
        edges = [8, 9, 5000, 5000 + PIECE, 5003 + 2 * PIECE, SIZE]
        jobs = [large.job(start, stop) for start, stop in pairwise(edges)] + [small.job(0)]
        with read(jobs, mode=mode) as reading:
            taken = list(reading)
        assert [job for job, _ in taken] == jobs
        assert [bytes(view) for _, view in taken] == expected(jobs)
        assert reading.fallbacks == {}

    @every_mode
    def test_all_jobs_can_be_read_at_once(self, sources: list[Plain], mode: Strategy) -> None:
        jobs = sources[0].cut(1_000_003) + sources[1].cut(100)
        assert list(map(bytes, read_all(jobs, mode=mode))) == expected(jobs)

    @every_mode
    @pytest.mark.parametrize("start", [0, 1, 511, 512, 4095, 4096, 4097])
    def test_jobs_can_start_and_end_at_any_byte(self, sources: list[Plain], mode: Strategy, start: int) -> None:
        ends = [start + 1, 4096, 8191, 8192, 8193, PIECE - 1, PIECE, PIECE + 1, SIZE - 1, SIZE]
        # Each job goes back in the file, so each is a separate block.
        jobs = [sources[0].job(start, stop) for stop in ends if stop > start]
        assert list(map(bytes, read_all(jobs, mode=mode))) == expected(jobs)

    @every_mode
    def test_empty_jobs_give_empty_views(self, sources: list[Plain], mode: Strategy) -> None:
        assert read_all([], mode=mode) == []
        jobs = [sources[0].job(5, 5), sources[1].job(777, 777), sources[0].job(10**9, 10**9)]
        assert list(map(bytes, read_all(jobs, mode=mode))) == [b"", b"", b""]

    @every_mode
    def test_an_empty_file_gives_an_empty_view(self, tmp_path: Path, mode: Strategy) -> None:
        source = Plain.at(written(tmp_path / "empty.safetensors", 0))
        assert list(map(bytes, read_all([source.job(0)], mode=mode))) == [b""]

    @every_mode
    @pytest.mark.parametrize("kind", ["tmpfs", "xfs", "btrfs"])
    def test_every_mode_works_on_other_filesystems(self, small_filesystem: MakeFilesystem, mode: Strategy, kind: str) -> None:
        volume = small_filesystem(kind, size=(300 if kind == "xfs" else 112) * MiB)  # type: ignore[arg-type]
        path = written(volume.path / "model.safetensors", SIZE)
        make_cold(path)
        jobs = Plain.at(path).cut(3_000_001)
        found = [bytes(view) for view in read_all(jobs, mode=mode)]
        gc.collect()  # a mapping would keep the volume busy
        assert found == expected(jobs)

    @every_mode
    def test_cold_files_give_the_same_bytes(self, sources: list[Plain], mode: Strategy) -> None:
        jobs = sources[0].cut(2_000_001)
        make_cold(Path(sources[0].path))
        assert list(map(bytes, read_all(jobs, mode=mode))) == expected(jobs)

    @every_mode
    def test_an_address_equals_its_file_offset_modulo_a_page(self, sources: list[Plain], mode: Strategy) -> None:
        """A tensor that is aligned in its file is aligned in memory."""
        jobs = sources[0].cut(1_000_008)
        for job, view in zip(jobs, read_all(jobs, mode=mode), strict=True):
            assert address(view) % PAGE == job.offset % PAGE

    @every_mode
    def test_a_write_to_a_view_changes_neither_the_file_nor_other_views(self, sources: list[Plain], mode: Strategy) -> None:
        jobs = [sources[1].job(0)]
        before = expected(jobs)
        (one,), (other,) = read_all(jobs, mode=mode), read_all(jobs, mode=mode)
        one[:] = bytes(777)
        assert [bytes(other)] == expected(jobs) == before

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
    @given(data=st.data())
    def test_any_jobs_can_be_read_in_any_mode(self, sources: list[Plain], data: st.DataObject) -> None:
        jobs = data.draw(st.lists(st.sampled_from(sources).flatmap(ranges), max_size=12))
        window = data.draw(st.sampled_from([None, 1, HUGE, 3 * HUGE, 64 * MiB]))
        threads, mode = data.draw(st.integers(1, 6)), data.draw(st.sampled_from(MODES))
        keep = data.draw(st.booleans())
        kept = []
        with read(jobs, window=window, threads=threads, mode=mode) as reading:
            found = []
            for job, view in reading:
                found.append((job, bytes(view)))
                if keep:
                    kept.append(view)
        assert found == list(zip(jobs, expected(jobs), strict=True))
        assert not keep or list(map(bytes, kept)) == expected(jobs), "a view was overwritten while it was kept"


def ranges(source: Plain) -> st.SearchStrategy[Job]:
    edges = st.one_of(st.integers(0, source.size), st.sampled_from([0, source.size // PAGE * PAGE, source.size]))
    return st.tuples(edges, edges).map(lambda pair: source.job(min(pair), max(pair)))


def address(view: memoryview) -> int:
    found: int = np.frombuffer(view, dtype=np.uint8).__array_interface__["data"][0]
    return found


class CountingArena(Arena):
    """`taken`: bytes of memory requested so far."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def take(self, size: int) -> memoryview:
        self.taken += size
        return super().take(size)


class TestWindow:
    @pytest.mark.parametrize("mode", ["buffered", "direct"])
    @pytest.mark.parametrize("threads", [1, 4])
    def test_the_threads_fill_the_window_and_then_wait(self, large: Plain, mode: Strategy, threads: int) -> None:
        arena = CountingArena()
        with read(large.cut(HUGE), window=4 * HUGE, threads=threads, mode=mode, arena=arena) as reading:
            for taken in range(10):
                # The threads stop exactly when the window is full, and only for that reason.
                wait_until(lambda taken=taken: arena.taken == (taken + 4) * HUGE, "the window is full")  # type: ignore[misc]
                wait_until(lambda: all_waiting(reading), "every thread waits for room")
                assert (arena.taken, reading.ahead) == ((taken + 4) * HUGE, 4 * HUGE)
                next(reading)

    @pytest.mark.parametrize("mode", MODES)
    def test_the_window_is_never_exceeded(self, large: Plain, mode: Strategy) -> None:
        with read(large.cut(100_000), window=3 * HUGE, mode=mode) as reading:
            for _ in reading:
                assert reading.ahead <= 3 * HUGE

    def test_a_job_larger_than_the_window_is_read_alone(self, large: Plain) -> None:
        arena = CountingArena()
        jobs = [large.job(0, HUGE), large.job(HUGE, 6 * HUGE), large.job(6 * HUGE, 7 * HUGE)]
        with read(jobs, window=2 * HUGE, arena=arena) as reading:
            wait_until(lambda: arena.taken == HUGE, "the first is read")
            wait_until(lambda: all_waiting(reading), "the second waits until nothing is ahead")
            assert arena.taken == HUGE
            assert bytes(next(reading)[1]) == expected(jobs)[0]
            wait_until(lambda: arena.taken == 6 * HUGE, "the second is read")
            wait_until(lambda: all_waiting(reading), "the third waits for the second to be taken")
            assert (arena.taken, reading.ahead) == (6 * HUGE, 5 * HUGE)
            assert contents(reading) == expected(jobs)[1:]

    def test_without_a_window_everything_is_read_ahead(self, large: Plain) -> None:
        arena = CountingArena()
        with read(large.cut(HUGE), window=None, arena=arena) as reading:
            wait_until(lambda: not readers(), "the threads are done")
            assert arena.taken == large.size
            assert contents(reading) == expected(large.cut(HUGE))

    def test_streaming_takes_no_more_memory_than_the_window_and_the_views(self, large: Plain) -> None:
        arena = Arena()
        with read(large.cut(HUGE), window=3 * HUGE, arena=arena) as reading:
            for _, _view in reading:  # the consumer keeps one view while it requests the next
                assert arena.lent + arena.idle <= 5 * HUGE
        assert arena.lent + arena.idle <= 5 * HUGE

    def test_memory_is_idle_as_soon_as_the_consumer_releases_its_view(self, large: Plain) -> None:
        arena = Arena()
        with read(large.cut(HUGE), window=3 * HUGE, arena=arena) as reading:
            for _ in range(5):
                next(reading)
                wait_until(lambda: reading.ahead == 3 * HUGE and all_waiting(reading), "the window is full again")
                assert arena.lent == 3 * HUGE

    def test_all_threads_read_a_single_block(self, large: Plain) -> None:
        gate = Gate.before(large)
        with read([gate.job(0)], threads=4) as reading:
            assert gate.reached.wait(60)
            wait_until(lambda: waiting(reading) == 3, "the other threads wait for its pieces and do not end")
            gate.opened.set()
            assert contents(reading) == expected([large.job(0)])

    def test_a_kept_arena_reuses_its_memory(self, large: Plain) -> None:
        arena = Arena()
        views = read_all(large.cut(HUGE), arena=arena)
        first, size = set(map(address, views)), arena.lent
        views.clear()
        assert (arena.lent, arena.idle) == (0, size)
        views = read_all(large.cut(HUGE), arena=arena)
        assert set(map(address, views)) == first
        assert (arena.lent, arena.idle) == (size, 0)

    def test_an_arena_does_not_reuse_memory_with_views(self, large: Plain) -> None:
        arena = Arena()
        before = read_all(large.cut(HUGE), arena=arena)
        other = Plain.at(written(Path(large.path).with_name("other.safetensors"), 40 * MiB - 1))
        after = read_all(other.cut(HUGE), arena=arena)
        assert not set(map(address, before)) & set(map(address, after))
        assert list(map(bytes, before)) == expected(large.cut(HUGE))


def all_waiting(reading: Reading) -> bool:
    """Whether every thread of the reading waits for room or has ended."""
    return waiting(reading) == len(readers())


def waiting(reading: Reading) -> int:
    """The number of waiting threads, from a private attribute: nothing public shows it."""
    return len(reading._ahead._changed._waiters)  # type: ignore[attr-defined]  # noqa: SLF001


class Gate(Plain):
    """A file whose opening waits for an event, as on a network that does not answer."""

    @classmethod
    def before(cls, source: Plain) -> Gate:
        gate = cls(source.path, source.identity)
        gate.reached, gate.opened = threading.Event(), threading.Event()
        return gate

    reached: threading.Event
    opened: threading.Event

    def open(self) -> int:
        self.reached.set()
        assert self.opened.wait(60)
        return super().open()


class TestEnding:
    """The fixture `nothing_left_behind` checks each of these."""

    @every_mode
    def test_a_reading_can_end_in_the_middle(self, large: Plain, mode: Strategy) -> None:
        with read(large.cut(HUGE), window=3 * HUGE, mode=mode) as reading:
            next(reading)
            assert readers()
        assert not readers()

    @every_mode
    def test_a_reading_can_end_before_the_first_view(self, large: Plain, mode: Strategy) -> None:
        with read(large.cut(HUGE), window=3 * HUGE, mode=mode):
            pass
        assert not readers()

    def test_an_exception_ends_the_reading(self, large: Plain) -> None:
        with suppress(ZeroDivisionError), read(large.cut(HUGE), window=3 * HUGE) as reading:
            next(reading)
            raise ZeroDivisionError
        assert not readers()

    def test_closing_a_generator_around_it_ends_the_reading(self, large: Plain) -> None:
        def tensors() -> Iterator[memoryview]:
            with read(large.cut(HUGE), window=3 * HUGE) as reading:
                for _, view in reading:
                    yield view

        iterator = tensors()
        next(iterator)
        assert readers()
        iterator.close()  # type: ignore[attr-defined]
        assert not readers()

    def test_deleting_a_generator_around_it_ends_the_reading(self, large: Plain) -> None:
        def tensors() -> Iterator[memoryview]:
            with read(large.cut(HUGE), window=3 * HUGE) as reading:
                for _, view in reading:
                    yield view

        iterator = tensors()
        next(iterator)
        del iterator
        gc.collect()
        assert not readers()

    def test_a_closed_reading_does_not_look_complete(self, large: Plain) -> None:
        with read(large.cut(HUGE), window=3 * HUGE) as reading:
            next(reading)
        with pytest.raises(RuntimeError, match="closed"):
            next(reading)

    def test_a_failed_reading_does_not_look_complete(self, large: Plain) -> None:
        gone = Plain(large.path + ".gone", large.identity)
        with read([gone.job(0, 5)]) as reading:
            with pytest.raises(NotFound):
                next(reading)
            with pytest.raises(RuntimeError, match="closed or has failed"):
                next(reading)

    def test_closing_from_another_thread_wakes_the_waiting_consumer_at_once(self, large: Plain) -> None:
        gate = Gate.before(large)
        woken = threading.Event()

        def take(reading: Reading) -> None:
            with pytest.raises(RuntimeError, match="closed"):
                next(reading)
            woken.set()

        with read(gate.cut(HUGE)) as reading:
            taker = threading.Thread(target=take, args=[reading])
            taker.start()
            assert gate.reached.wait(60)
            closer = threading.Thread(target=reading.close)
            closer.start()
            assert woken.wait(60), "the consumer is woken although the file is still being opened"
            gate.opened.set()
            closer.join()
            taker.join()

    def test_views_outlive_the_reading(self, large: Plain) -> None:
        arena = Arena()
        with read(large.cut(HUGE), window=3 * HUGE, arena=arena) as reading:
            views = [next(reading)[1], next(reading)[1]]
        other = read_all(large.cut(HUGE)[10:12], arena=arena)
        assert list(map(bytes, views)) == expected(large.cut(HUGE)[:2])
        assert list(map(bytes, other)) == expected(large.cut(HUGE)[10:12])

    @every_mode
    def test_each_file_is_closed_as_soon_as_it_is_read(self, tmp_path: Path, mode: Strategy) -> None:
        """A checkpoint may have more shards than a process may open files."""
        sources = [Plain.at(written(tmp_path / f"{number}.safetensors", HUGE - number)) for number in range(30)]
        jobs = [source.job(0) for source in sources]
        with read(jobs, window=2 * HUGE, mode=mode) as reading:
            for number, (_, view) in enumerate(reading):
                assert bytes(view) == expected([jobs[number]])[0]
                assert len(open_shards()) <= 12
        assert [len(source.descriptors) for source in sources] == [1] * 30

    def test_a_missing_file_ends_the_reading(self, large: Plain) -> None:
        gone = Plain(large.path + ".gone", large.identity)
        with read([gone.job(0, 5), *large.cut(HUGE)]) as reading, pytest.raises(NotFound, match="gone"):
            list(reading)

    def test_an_error_is_raised_before_earlier_blocks_are_ready(self, large: Plain) -> None:
        gate = Gate.before(large)
        gone = Plain(large.path + ".gone", large.identity)
        with read([gate.job(0, HUGE), gone.job(0, 5)]) as reading:
            with pytest.raises(NotFound, match="gone"):
                next(reading)
            gate.opened.set()
