"""What is said to be in the page cache is there: for the owner, for a stranger, on every kind of filesystem and kernel."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import ByteRange
from loader import kernel
from loader.kernel import PAGE, mapped, tells_truth
from loader.residency import page_cache as residency
from loader.residency.page_cache import Method, Residency, evict, glance, measure, together
from tests.lab.filesystems import SmallFilesystem
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import MiB, as_nobody, make_cold, make_warm, opened, written

pytestmark = pytest.mark.page_cache

PAGES = 2048
SIZE = PAGES * PAGE
Mount = Callable[..., Path]


@pytest.fixture
def file(volume: SmallFilesystem) -> Path:
    """Root's, readable to all, of 2048 pages: more than are ever sampled."""
    return written(volume.path / "model.safetensors", SIZE)


ON_DISK = ["ext4, read-only", "bind mount, read-only", "overlay"]
on_disk = pytest.mark.parametrize("foreign", ON_DISK, indirect=True)


@pytest.fixture(params=[*ON_DISK, "tmpfs"])
def foreign(
    request: pytest.FixtureRequest, volume: SmallFilesystem, tmp_path: Path, mount: Mount, small_filesystem: MakeFilesystem
) -> Path:
    """Root's file where a stranger finds it."""
    name = "model.safetensors"
    if request.param == "tmpfs":
        return written(small_filesystem("tmpfs", size=SIZE + MiB).path / name, SIZE)
    layer = volume.path / "layer"
    layer.mkdir()
    written(layer / name, SIZE)
    match request.param:
        case "ext4, read-only":
            volume.remount_read_only()
            return layer / name
        case "bind mount, read-only":
            return mount(tmp_path / "bound", "--bind", "-o", "ro", layer) / name
        case _:
            (volume.path / "other").mkdir()
            return mount(tmp_path / "merged", "-t", "overlay", "-o", f"lowerdir={layer}:{volume.path}/other", "overlay") / name


class TestOwner:
    def test_all_of_a_file_that_was_just_read(self, file: Path) -> None:
        make_warm(file)
        with opened(file) as fd:
            assert measure(fd) == Residency(SIZE, SIZE, "mincore")
            assert glance(fd).complete

    def test_nothing_of_a_file_that_was_evicted(self, file: Path) -> None:
        make_cold(file)
        with opened(file) as fd:
            assert measure(fd) == Residency(0, SIZE, "mincore")
            assert glance(fd).resident == 0

    @pytest.mark.parametrize("pages", [{0}, {PAGES - 1}, {0, 7, 8, 900, PAGES - 1}, set(range(100, 1500))], ids=len)
    def test_exactly_the_pages_that_were_read(self, file: Path, pages: set[int]) -> None:
        make_cold(file)
        make_warm(file, pages)
        with opened(file) as fd:
            assert measure(fd) == Residency(len(pages) * PAGE, SIZE, "mincore")
            assert glance(fd).resident == len(pages) * PAGE

    def test_a_range_is_what_the_range_holds(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, {4, 5, 6, 100})
        with opened(file) as fd:
            for first, last, there in [(4, 7, 3), (0, 4, 0), (6, 101, 2), (5, 6, 1)]:
                part = ByteRange(first * PAGE, last * PAGE)
                assert measure(fd, part) == Residency(there * PAGE, len(part), "mincore")
                assert glance(fd, part).resident == there * PAGE

    def test_two_bytes_on_two_pages_are_not_there_when_one_page_is(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, {4})
        with opened(file) as fd:
            assert measure(fd, ByteRange(5 * PAGE - 1, 5 * PAGE + 1)) == Residency(1, 2, "mincore")
            assert not glance(fd, ByteRange(5 * PAGE - 1, 5 * PAGE + 1)).complete

    def test_a_range_ends_where_the_file_does(self, file: Path) -> None:
        with opened(file) as fd:
            assert measure(fd, ByteRange(SIZE - 10, SIZE + 10)).total == 10
            assert measure(fd, ByteRange(SIZE + 10, SIZE + 20)) == Residency(0, 0, "memory")

    @pytest.mark.parametrize("size", [1, PAGE - 1, PAGE + 1, 10 * PAGE + 17])
    def test_the_last_page_counts_as_far_as_the_file_reaches(self, volume: SmallFilesystem, size: int) -> None:
        path = written(volume.path / "odd", size)
        with opened(path) as fd:
            make_warm(path)
            assert measure(fd) == Residency(size, size, "mincore")
            make_cold(path)
            assert measure(fd) == Residency(0, size, "mincore")

    def test_an_empty_file_is_all_there(self, volume: SmallFilesystem) -> None:
        (volume.path / "empty").touch()
        with opened(volume.path / "empty") as fd:
            assert measure(fd) == glance(fd) == evict(fd)
            assert (measure(fd).complete, measure(fd).fraction) == (True, 1.0)

    def test_holes_are_missing_until_they_are_read_and_offsets_may_exceed_4_gib(self, volume: SmallFilesystem) -> None:
        path, size = volume.path / "sparse", 5 * 1024 * MiB
        path.touch()
        os.truncate(path, size)
        with opened(path) as fd:
            assert measure(fd) == Residency(0, size, "mincore")
            make_warm(path, {0, (size - MiB) // PAGE})
            assert measure(fd) == Residency(2 * PAGE, size, "mincore")
            assert measure(fd, ByteRange(size - 2 * MiB, size)).resident == PAGE
            assert glance(fd, ByteRange(size - 2 * MiB, size)).resident == PAGE

    def test_a_file_truncated_underneath_is_gone_and_kills_nobody(self, file: Path) -> None:
        make_warm(file)
        with opened(file) as fd, mapped(fd, 0, SIZE) as window:
            assert window is not None
            assert window.resident_pages() == PAGES
            os.truncate(file, 0)
            assert window.resident_pages() == 0
            assert window.faults() == 1
            assert measure(fd).total == 0

    def test_pages_on_tmpfs_are_in_memory(self, small_filesystem: MakeFilesystem) -> None:
        path = written(small_filesystem("tmpfs", size=2 * MiB).path / "model", MiB)
        with opened(path) as fd:
            assert measure(fd).complete
            assert evict(fd).complete

    def test_tmpfs_is_memory_only_where_there_is_no_swap(self, small_filesystem: MakeFilesystem, tmp_path: Path) -> None:
        path = written(small_filesystem("tmpfs", size=2 * MiB).path / "model", MiB)
        swaps = tmp_path / "swaps"
        with opened(path) as fd:
            swaps.write_text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
            assert kernel.always_in_memory(fd, swaps)
            swaps.write_text(swaps.read_text() + "/dev/vdb partition 1048572 0 -2\n")
            assert not kernel.always_in_memory(fd, swaps)

    def test_pages_behind_an_overlay_are_seen_although_cachestat_counts_none(
        self, volume: SmallFilesystem, tmp_path: Path, mount: Mount
    ) -> None:
        for name in ("lower", "upper", "work"):
            (volume.path / name).mkdir()
        written(volume.path / "lower/model", SIZE)
        layers = f"lowerdir={volume.path}/lower,upperdir={volume.path}/upper,workdir={volume.path}/work"
        path = mount(tmp_path / "merged", "-t", "overlay", "-o", layers, "overlay") / "model"
        make_warm(path)
        with opened(path) as fd:
            assert glance(fd).complete
            assert measure(fd) == Residency(SIZE, SIZE, "mincore")
            assert evict(fd) == Residency(0, SIZE, "mincore")


class TestEviction:
    def test_nothing_stays_that_nobody_uses(self, file: Path) -> None:
        make_warm(file)
        with opened(file) as fd:
            assert evict(fd) == Residency(0, SIZE, "mincore")

    def test_dirty_pages_are_written_back_first(self, volume: SmallFilesystem) -> None:
        path, content = volume.path / "dirty", random.Random(1).randbytes(SIZE)
        path.write_bytes(content)
        with opened(path) as fd:
            assert evict(fd) == Residency(0, SIZE, "mincore")
        volume.lose_power()
        assert path.read_bytes() == content

    def test_locked_pages_stay_and_are_told(self, file: Path) -> None:
        make_warm(file)
        libc = ctypes.CDLL(None)
        with file.open("rb+") as own, mmap.mmap(own.fileno(), SIZE) as view:
            start = ctypes.c_char.from_buffer(view)
            assert libc.mlock(ctypes.byref(start), ctypes.c_size_t(100 * PAGE)) == 0
            left = evict(own.fileno())
            del start
        assert left.resident is not None
        assert 100 * PAGE <= left.resident < SIZE  # a large folio stays as a whole
        with opened(file) as fd:
            assert evict(fd).resident == 0

    def test_a_part_goes_and_the_rest_stays(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, range(PAGES))  # one by one: a large folio goes as a whole or not at all
        with opened(file) as fd:
            assert evict(fd, ByteRange(512 * PAGE, 1024 * PAGE)) == Residency(0, 512 * PAGE, "mincore")
            assert measure(fd).resident == SIZE - 512 * PAGE

    @on_disk
    def test_a_stranger_evicts_too(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            left = as_nobody(lambda: evict(fd))
            truth = measure(fd)
        assert left.method == "sampled"
        assert (left.fraction or 0) < 0.1
        assert truth.resident is not None
        assert truth.resident < 0.2 * SIZE  # looking brought some in


class TestStranger:
    """UID 65532 on a root-owned file: mincore calls every page resident, and cachestat is refused."""

    def test_the_kernel_lies_to_a_stranger_and_that_is_noticed(self, foreign: Path) -> None:
        with opened(foreign) as fd:
            assert tells_truth(fd)
            assert as_nobody(lambda: tells_truth(fd)) is False
            assert as_nobody(lambda: _mincore_says(fd)) == PAGES

    @on_disk
    def test_nothing_is_there_of_a_cold_file(self, foreign: Path) -> None:
        make_cold(foreign)
        with opened(foreign) as fd:
            seen = as_nobody(lambda: glance(fd)), as_nobody(lambda: measure(fd))
        for told in seen:
            assert told.method == "sampled"
            assert told.fraction is not None
            assert told.fraction < 0.2  # looking brought some in

    @on_disk
    def test_looking_at_a_cold_file_does_not_read_it(self, foreign: Path) -> None:
        make_cold(foreign)
        with opened(foreign) as fd:
            as_nobody(lambda: (glance(fd), measure(fd)))
            truth = measure(fd)
        assert truth.fraction is not None
        assert truth.fraction < 0.2

    def test_all_is_there_of_a_warm_file(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            told = as_nobody(lambda: measure(fd))
        assert told.complete
        assert told.method in ("faults", "memory")

    def test_a_glance_at_a_sample_never_claims_the_whole(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            told = as_nobody(lambda: glance(fd))
        assert told.fraction is not None
        assert told.fraction > 0.99
        assert told.complete == (told.method == "memory")

    @on_disk
    @pytest.mark.parametrize("absent", [{0}, {PAGES - 1}, {1000}, {5, 500, 1500}])
    def test_a_file_that_lacks_a_page_is_not_all_there_before_it_was_brought_in(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)
        with opened(foreign) as fd:
            assert measure(fd).resident == SIZE - len(absent) * PAGE
            told = as_nobody(lambda: measure(fd))
            assert told.fraction == pytest.approx(1, abs=0.01)
            assert measure(fd).complete or not told.complete

    @on_disk
    @pytest.mark.parametrize("absent", [set(), {0}, {1000}, set(range(1000, 1200))], ids=len)
    def test_what_was_missing_shows_when_all_is_brought_in(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)

        def count(descriptor: int, size: int) -> int | None:
            with mapped(descriptor, 0, size) as window:
                return window.faults(alone=True) if window else None

        def faults() -> int | None:
            # The process's own code may have to be waited for as well: it counts once before, in the same process.
            count(other, PAGE)
            return count(fd, SIZE)

        with opened(foreign) as fd, opened(Path(__file__)) as other, locked(fd, absent):
            assert measure(fd).resident == SIZE - len(absent) * PAGE
            assert as_nobody(faults) == len(absent)
            assert measure(fd).complete

    @on_disk
    @pytest.mark.parametrize("absent", [set(range(1000, 1200)), set(range(0, PAGES, 20))], ids=["a stretch", "every twentieth"])
    def test_a_file_that_lacks_more_is_not_all_there_and_is_not_read(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)
        with opened(foreign) as fd:
            told = as_nobody(lambda: measure(fd))
        assert told.method == "sampled"
        assert told.fraction == pytest.approx(1 - len(absent) / PAGES, abs=0.05)

    @on_disk
    def test_half_of_a_file_is_about_half_of_it(self, foreign: Path) -> None:
        make_cold(foreign)
        make_warm(foreign, range(0, PAGES, 2))
        with opened(foreign) as fd:
            told = as_nobody(lambda: measure(fd))
        assert told.method == "sampled"
        assert told.fraction is not None
        assert 0.25 < told.fraction < 0.75


class TestOlderKernels:
    """Kernels, sandboxes and seccomp filters that do not know a call, or do not count."""

    @pytest.fixture
    def without_cachestat(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernel, "_CACHESTAT", 1 << 20)

    @pytest.fixture
    def without_counting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(residency, "counts_waiting", lambda _: False)

    @pytest.mark.usefixtures("without_cachestat")
    def test_without_cachestat_a_glance_asks_mincore(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, range(300))
        with opened(file) as fd:
            assert glance(fd) == Residency(300 * PAGE, SIZE, "mincore")

    @pytest.mark.usefixtures("without_cachestat")
    def test_of_a_larger_file_it_asks_about_some_pages(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(residency, "_WINDOW", SIZE // 4)
        with opened(file) as fd:
            make_warm(file)
            assert glance(fd) == Residency(SIZE * 1024 // 1025, SIZE, "sampled")
            assert measure(fd) == Residency(SIZE, SIZE, "mincore")
            make_cold(file)
            assert glance(fd) == Residency(0, SIZE, "sampled")
            assert measure(fd) == Residency(0, SIZE, "mincore")  # asking mincore brought nothing in

    @pytest.mark.usefixtures("without_cachestat", "without_counting")
    def test_a_stranger_with_neither_has_an_estimate(self, volume: SmallFilesystem, file: Path) -> None:
        volume.remount_read_only()
        with opened(file) as fd:
            make_warm(file)
            told = as_nobody(lambda: measure(fd))
            assert told == Residency(SIZE * 1024 // 1025, SIZE, "sampled")
            make_cold(file)
            told = as_nobody(lambda: measure(fd))
        assert told.method == "sampled"
        assert (told.fraction or 0) < 0.1

    @pytest.mark.usefixtures("without_cachestat", "without_counting")
    def test_nothing_at_all_is_unknown_and_not_all(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_warm(file)
        monkeypatch.setattr(residency, "read_at_once", lambda *_: None)
        with opened(file) as fd:
            told = as_nobody(lambda: (glance(fd), measure(fd), evict(fd)))
        assert told == (Residency(None, SIZE, "unknown"),) * 3
        assert (told[0].fraction, told[0].complete, told[0].missing) == (None, False, SIZE)

    def test_waiting_is_counted_by_filesystems_that_are_known_to(self, foreign: Path) -> None:
        with opened(foreign) as fd, opened(Path("/proc/self/status")) as other:
            assert kernel.counts_waiting(fd)
            assert not kernel.counts_waiting(other)

    def test_what_cannot_be_mapped_is_unknown_without_cachestat(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def refused(*_: int) -> Iterator[None]:
            yield None

        monkeypatch.setattr(kernel, "_CACHESTAT", 1 << 20)
        monkeypatch.setattr(kernel, "mapped", refused)
        monkeypatch.setattr(residency, "mapped", refused)
        monkeypatch.setattr(residency, "read_at_once", lambda *_: None)
        with opened(file) as fd:
            assert measure(fd) == glance(fd) == Residency(None, SIZE, "unknown")


@contextmanager
def locked(fd: int, absent: set[int]) -> Iterator[None]:
    """No page but the absent ones can be taken away meanwhile, however short of memory the machine is."""
    borders = [-1, *sorted(absent), PAGES]
    address = kernel.map_shared(fd, 0, SIZE)
    try:
        for before, after in pairwise(borders):
            if after > before + 1:
                assert kernel.lock(address + (before + 1) * PAGE, (after - before - 1) * PAGE) == 0
        yield
    finally:
        kernel.unmap(address, SIZE)


METHODS: list[Method] = ["memory", "mincore", "faults", "cachestat", "sampled", "unknown"]
some = st.builds(
    lambda total, share, method: Residency(None if method == "unknown" else total * share // 100, total, method),
    st.integers(0, 1 << 45),
    st.integers(0, 100),
    st.sampled_from(METHODS),
)


class TestTogether:
    @given(st.lists(some, max_size=5))
    def test_the_whole_is_all_there_if_each_part_is(self, parts: list[Residency]) -> None:
        whole = together(parts)
        assert whole.complete == all(part.complete for part in parts)
        assert whole.total == sum(part.total for part in parts)
        assert whole.missing >= sum(part.missing for part in parts)
        assert whole.fraction is None or 0 <= whole.fraction <= 1

    def test_it_is_as_sure_as_its_least_sure_part(self) -> None:
        assert together([Residency(1, 2, "mincore"), Residency(3, 4, "sampled")]) == Residency(4, 6, "sampled")
        assert together([Residency(1, 2, "mincore"), Residency(None, 4, "unknown")]) == Residency(None, 6, "unknown")

    def test_no_files_are_all_there(self) -> None:
        assert together([]) == Residency(0, 0, "memory")


def _mincore_says(fd: int) -> int | None:
    with mapped(fd, 0, SIZE) as window:
        return window.resident_pages() if window else None
