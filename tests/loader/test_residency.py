"""Reported residency is true: for the owner and for another user, on every kind of filesystem and kernel."""

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
from loader.kernel import PAGE, mapped, mincore_is_reliable
from loader.residency import page_cache as residency
from loader.residency.page_cache import Method, Residency, drop, glance, measure, together
from tests.lab.filesystems import SmallFilesystem
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import MiB, as_nobody, make_cold, make_warm, opened, written

pytestmark = pytest.mark.page_cache

PAGES = 2048
SIZE = PAGES * PAGE
Mount = Callable[..., Path]


@pytest.fixture
def file(volume: SmallFilesystem) -> Path:
    """A file of root, readable by all, of 2048 pages: more than are ever sampled."""
    return written(volume.path / "model.safetensors", SIZE)


ON_DISK = ["ext4, read-only", "bind mount, read-only", "overlay"]
on_disk = pytest.mark.parametrize("foreign", ON_DISK, indirect=True)


@pytest.fixture(params=[*ON_DISK, "tmpfs"])
def foreign(
    request: pytest.FixtureRequest, volume: SmallFilesystem, tmp_path: Path, mount: Mount, small_filesystem: MakeFilesystem
) -> Path:
    """A file of root, on different filesystems, for another user to measure."""
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
    def test_a_file_that_was_just_read_is_resident(self, file: Path) -> None:
        make_warm(file)
        with opened(file) as fd:
            assert measure(fd) == Residency(SIZE, SIZE, "mincore")
            assert glance(fd).complete

    def test_a_dropped_file_is_not_resident(self, file: Path) -> None:
        make_cold(file)
        with opened(file) as fd:
            assert measure(fd) == Residency(0, SIZE, "mincore")
            assert glance(fd).resident == 0

    @pytest.mark.parametrize("pages", [{0}, {PAGES - 1}, {0, 7, 8, 900, PAGES - 1}, set(range(100, 1500))], ids=len)
    def test_exactly_the_pages_that_were_read_are_resident(self, file: Path, pages: set[int]) -> None:
        make_cold(file)
        make_warm(file, pages)
        with opened(file) as fd:
            assert measure(fd) == Residency(len(pages) * PAGE, SIZE, "mincore")
            assert glance(fd).resident == len(pages) * PAGE

    def test_only_pages_of_the_range_count(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, {4, 5, 6, 100})
        with opened(file) as fd:
            for first, last, there in [(4, 7, 3), (0, 4, 0), (6, 101, 2), (5, 6, 1)]:
                part = ByteRange(first * PAGE, last * PAGE)
                assert measure(fd, part) == Residency(there * PAGE, len(part), "mincore")
                assert glance(fd, part).resident == there * PAGE

    def test_two_bytes_on_two_pages_are_incomplete_if_one_page_is_missing(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, {4})
        with opened(file) as fd:
            assert measure(fd, ByteRange(5 * PAGE - 1, 5 * PAGE + 1)) == Residency(1, 2, "mincore")
            assert not glance(fd, ByteRange(5 * PAGE - 1, 5 * PAGE + 1)).complete

    def test_a_range_beyond_the_end_is_cut_at_the_end_of_the_file(self, file: Path) -> None:
        with opened(file) as fd:
            assert measure(fd, ByteRange(SIZE - 10, SIZE + 10)).total == 10
            assert measure(fd, ByteRange(SIZE + 10, SIZE + 20)) == Residency(0, 0, "memory")

    @pytest.mark.parametrize("size", [1, PAGE - 1, PAGE + 1, 10 * PAGE + 17])
    def test_the_last_page_counts_only_to_the_end_of_the_file(self, volume: SmallFilesystem, size: int) -> None:
        path = written(volume.path / "odd", size)
        with opened(path) as fd:
            make_warm(path)
            assert measure(fd) == Residency(size, size, "mincore")
            make_cold(path)
            assert measure(fd) == Residency(0, size, "mincore")

    def test_an_empty_file_is_complete(self, volume: SmallFilesystem) -> None:
        (volume.path / "empty").touch()
        with opened(volume.path / "empty") as fd:
            assert measure(fd) == glance(fd) == drop(fd)
            assert (measure(fd).complete, measure(fd).fraction) == (True, 1.0)

    def test_holes_are_missing_until_they_are_read_also_beyond_4_gib(self, volume: SmallFilesystem) -> None:
        path, size = volume.path / "sparse", 5 * 1024 * MiB
        path.touch()
        os.truncate(path, size)
        with opened(path) as fd:
            assert measure(fd) == Residency(0, size, "mincore")
            make_warm(path, {0, (size - MiB) // PAGE})
            assert measure(fd) == Residency(2 * PAGE, size, "mincore")
            assert measure(fd, ByteRange(size - 2 * MiB, size)).resident == PAGE
            assert glance(fd, ByteRange(size - 2 * MiB, size)).resident == PAGE

    def test_a_truncated_mapping_is_not_resident_and_raises_no_sigbus(self, file: Path) -> None:
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
            assert drop(fd).complete

    def test_tmpfs_counts_as_memory_only_without_swap(self, small_filesystem: MakeFilesystem, tmp_path: Path) -> None:
        path = written(small_filesystem("tmpfs", size=2 * MiB).path / "model", MiB)
        swaps = tmp_path / "swaps"
        with opened(path) as fd:
            swaps.write_text("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
            assert kernel.always_in_memory(fd, swaps)
            swaps.write_text(swaps.read_text() + "/dev/vdb partition 1048572 0 -2\n")
            assert not kernel.always_in_memory(fd, swaps)

    def test_pages_behind_an_overlay_are_counted_although_cachestat_reports_none(
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
            assert drop(fd) == Residency(0, SIZE, "mincore")


class TestEviction:
    def test_unused_pages_are_dropped(self, file: Path) -> None:
        make_warm(file)
        with opened(file) as fd:
            assert drop(fd) == Residency(0, SIZE, "mincore")

    def test_dirty_pages_are_written_back_first(self, volume: SmallFilesystem) -> None:
        path, content = volume.path / "dirty", random.Random(1).randbytes(SIZE)
        path.write_bytes(content)
        with opened(path) as fd:
            assert drop(fd) == Residency(0, SIZE, "mincore")
        volume.lose_power()
        assert path.read_bytes() == content

    def test_locked_pages_stay_and_are_reported(self, file: Path) -> None:
        make_warm(file)
        libc = ctypes.CDLL(None)
        with file.open("rb+") as own, mmap.mmap(own.fileno(), SIZE) as view:
            start = ctypes.c_char.from_buffer(view)
            assert libc.mlock(ctypes.byref(start), ctypes.c_size_t(100 * PAGE)) == 0
            after = drop(own.fileno())
            del start
        assert after.resident is not None
        assert 100 * PAGE <= after.resident < SIZE  # a large folio stays or goes as a whole
        with opened(file) as fd:
            assert drop(fd).resident == 0

    def test_only_the_pages_of_a_part_are_dropped(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, range(PAGES))  # one by one: a large folio is dropped as a whole or not at all
        with opened(file) as fd:
            assert drop(fd, ByteRange(512 * PAGE, 1024 * PAGE)) == Residency(0, 512 * PAGE, "mincore")
            assert measure(fd).resident == SIZE - 512 * PAGE

    @on_disk
    def test_another_user_can_drop_pages(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            after = as_nobody(lambda: drop(fd))
            truth = measure(fd)
        assert after.method == "sampled"
        assert (after.fraction or 0) < 0.1
        assert truth.resident is not None
        assert truth.resident < 0.2 * SIZE  # measuring read some pages


class TestStranger:
    """A user who does not own the file (UID 65532): mincore reports every page as resident, and cachestat is refused."""

    def test_mincore_s_false_answer_to_another_user_is_detected(self, foreign: Path) -> None:
        with opened(foreign) as fd:
            assert mincore_is_reliable(fd)
            assert as_nobody(lambda: mincore_is_reliable(fd)) is False
            assert as_nobody(lambda: _mincore_count(fd)) == PAGES

    @on_disk
    def test_a_cold_file_is_reported_as_cold(self, foreign: Path) -> None:
        make_cold(foreign)
        with opened(foreign) as fd:
            seen = as_nobody(lambda: glance(fd)), as_nobody(lambda: measure(fd))
        for reported in seen:
            assert reported.method == "sampled"
            assert reported.fraction is not None
            assert reported.fraction < 0.2  # measuring read some pages

    @on_disk
    def test_measuring_a_cold_file_does_not_read_it(self, foreign: Path) -> None:
        make_cold(foreign)
        with opened(foreign) as fd:
            as_nobody(lambda: (glance(fd), measure(fd)))
            truth = measure(fd)
        assert truth.fraction is not None
        assert truth.fraction < 0.2

    def test_a_warm_file_is_complete(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            reported = as_nobody(lambda: measure(fd))
        assert reported.complete
        assert reported.method in ("faults", "memory")

    def test_a_sample_never_claims_the_whole_file(self, foreign: Path) -> None:
        make_warm(foreign)
        with opened(foreign) as fd:
            reported = as_nobody(lambda: glance(fd))
        assert reported.fraction is not None
        assert reported.fraction > 0.99
        assert reported.complete == (reported.method == "memory")

    @on_disk
    @pytest.mark.parametrize("absent", [{0}, {PAGES - 1}, {1000}, {5, 500, 1500}])
    def test_a_file_with_a_missing_page_is_incomplete_unless_measuring_read_it(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)
        with opened(foreign) as fd:
            assert measure(fd).resident == SIZE - len(absent) * PAGE
            reported = as_nobody(lambda: measure(fd))
            assert reported.fraction == pytest.approx(1, abs=0.01)
            assert measure(fd).complete or not reported.complete

    @on_disk
    @pytest.mark.parametrize("absent", [set(), {0}, {1000}, set(range(1000, 1200))], ids=len)
    def test_faults_count_exactly_the_missing_pages(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)

        def count(descriptor: int, size: int) -> int | None:
            with mapped(descriptor, 0, size) as window:
                return window.faults(alone=True) if window else None

        def faults() -> int | None:
            # The process's own code may fault too, so a first call in the same process loads it.
            count(other, PAGE)
            return count(fd, SIZE)

        with opened(foreign) as fd, opened(Path(__file__)) as other, locked(fd, absent):
            assert measure(fd).resident == SIZE - len(absent) * PAGE
            assert as_nobody(faults) == len(absent)
            assert measure(fd).complete

    @on_disk
    @pytest.mark.parametrize("absent", [set(range(1000, 1200)), set(range(0, PAGES, 20))], ids=["a range", "every twentieth"])
    def test_a_file_with_many_missing_pages_is_estimated_and_not_read(self, foreign: Path, absent: set[int]) -> None:
        make_cold(foreign)
        make_warm(foreign, set(range(PAGES)) - absent)
        with opened(foreign) as fd:
            reported = as_nobody(lambda: measure(fd))
        assert reported.method == "sampled"
        assert reported.fraction == pytest.approx(1 - len(absent) / PAGES, abs=0.05)

    @on_disk
    def test_a_half_resident_file_is_estimated_at_about_half(self, foreign: Path) -> None:
        make_cold(foreign)
        make_warm(foreign, range(0, PAGES, 2))
        with opened(foreign) as fd:
            reported = as_nobody(lambda: measure(fd))
        assert reported.method == "sampled"
        assert reported.fraction is not None
        assert 0.25 < reported.fraction < 0.75


class TestOlderKernels:
    """Kernels, sandboxes and seccomp filters that lack a system call or do not count faults."""

    @pytest.fixture
    def without_cachestat(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernel, "_CACHESTAT", 1 << 20)

    @pytest.fixture
    def without_counting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(residency, "counts_waiting", lambda _: False)

    @pytest.mark.usefixtures("without_cachestat")
    def test_without_cachestat_a_glance_uses_mincore(self, file: Path) -> None:
        make_cold(file)
        make_warm(file, range(300))
        with opened(file) as fd:
            assert glance(fd) == Residency(300 * PAGE, SIZE, "mincore")

    @pytest.mark.usefixtures("without_cachestat")
    def test_without_cachestat_a_glance_at_a_large_file_samples_pages(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(residency, "_WINDOW", SIZE // 4)
        with opened(file) as fd:
            make_warm(file)
            assert glance(fd) == Residency(SIZE * 1024 // 1025, SIZE, "sampled")
            assert measure(fd) == Residency(SIZE, SIZE, "mincore")
            make_cold(file)
            assert glance(fd) == Residency(0, SIZE, "sampled")
            assert measure(fd) == Residency(0, SIZE, "mincore")  # mincore itself reads nothing

    @pytest.mark.usefixtures("without_cachestat", "without_counting")
    def test_another_user_without_cachestat_and_fault_counts_gets_an_estimate(
        self, volume: SmallFilesystem, file: Path
    ) -> None:
        volume.remount_read_only()
        with opened(file) as fd:
            make_warm(file)
            reported = as_nobody(lambda: measure(fd))
            assert reported == Residency(SIZE * 1024 // 1025, SIZE, "sampled")
            make_cold(file)
            reported = as_nobody(lambda: measure(fd))
        assert reported.method == "sampled"
        assert (reported.fraction or 0) < 0.1

    @pytest.mark.usefixtures("without_cachestat", "without_counting")
    def test_without_any_method_the_result_is_unknown(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_warm(file)
        monkeypatch.setattr(residency, "read_at_once", lambda *_: None)
        with opened(file) as fd:
            reported = as_nobody(lambda: (glance(fd), measure(fd), drop(fd)))
        assert reported == (Residency(None, SIZE, "unknown"),) * 3
        assert (reported[0].fraction, reported[0].complete, reported[0].missing) == (None, False, SIZE)

    def test_faults_are_trusted_only_on_known_filesystems(self, foreign: Path) -> None:
        with opened(foreign) as fd, opened(Path("/proc/self/status")) as other:
            assert kernel.counts_waiting(fd)
            assert not kernel.counts_waiting(other)

    def test_a_file_that_cannot_be_mapped_is_unknown_without_cachestat(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
    """Lock all pages but the absent ones, so that a machine short of memory cannot reclaim them meanwhile."""
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
    def test_the_whole_is_complete_if_every_part_is(self, parts: list[Residency]) -> None:
        whole = together(parts)
        assert whole.complete == all(part.complete for part in parts)
        assert whole.total == sum(part.total for part in parts)
        assert whole.missing >= sum(part.missing for part in parts)
        assert whole.fraction is None or 0 <= whole.fraction <= 1

    def test_the_method_is_the_least_certain_of_the_parts(self) -> None:
        assert together([Residency(1, 2, "mincore"), Residency(3, 4, "sampled")]) == Residency(4, 6, "sampled")
        assert together([Residency(1, 2, "mincore"), Residency(None, 4, "unknown")]) == Residency(None, 6, "unknown")

    def test_no_files_are_complete(self) -> None:
        assert together([]) == Residency(0, 0, "memory")


def _mincore_count(fd: int) -> int | None:
    with mapped(fd, 0, SIZE) as window:
        return window.resident_pages() if window else None
