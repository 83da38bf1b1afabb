"""Failing disks, changing files and refusing filesystems: a clear error at once, or a fallback with its reason."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fetcher.errors import LocalIOError
from loader.errors import FileReplaced
from loader.kernel import PAGE
from loader.reading import access
from loader.reading.blocks import HUGE, Job
from loader.reading.reader import read
from loader.reading.strategy import Strategy
from loader.residency.page_cache import measure
from tests.lab.faultfs import Rule
from tests.lab.faults import FaultFilesystem
from tests.lab.filesystems import SmallFilesystem
from tests.loader.conftest import MiB, make_cold, written
from tests.loader.sources import Plain, expected
from tests.loader.test_reader import every_mode

pytestmark = [pytest.mark.page_cache, pytest.mark.usefixtures("nothing_left_behind")]
SIZE = 4 * MiB + 777


class Careless(Plain):
    """Never checks the file's identity, so the read itself must notice a change."""

    def check(self, descriptor: int) -> None:
        pass


@pytest.fixture
def broken(faulty: FaultFilesystem) -> Plain:
    written(faulty.source / "model.safetensors", SIZE)
    return Plain.at(faulty.path / "model.safetensors")


def outcome(jobs: Iterable[Job], mode: Strategy) -> tuple[list[bytes], dict[str, str]]:
    """Return the bytes read, and the fallbacks."""
    with read(jobs, mode=mode) as reading:
        return [bytes(view) for _, view in reading], dict(reading.fallbacks)


class TestBrokenDisks:
    @every_mode
    @pytest.mark.parametrize("after", [0, MiB, 4 * MiB])
    def test_a_read_error_names_the_file_and_the_offset(
        self, faulty: FaultFilesystem, broken: Plain, mode: Strategy, after: int
    ) -> None:
        faulty.obey(Rule("read", match="model", error=errno.EIO, after=after))
        with pytest.raises(LocalIOError, match=r"bytes at offset \d+ of .*/model\.safetensors: input/output error") as caught:
            outcome(broken.cut(MiB), mode)
        assert (caught.value.path, caught.value.retryable) == (broken.path, True)

    @pytest.mark.parametrize("mode", ["buffered", "direct"])
    @pytest.mark.parametrize("short", [1, 4096, 5000, 100_000])
    def test_short_reads_are_continued(self, faulty: FaultFilesystem, broken: Plain, mode: Strategy, short: int) -> None:
        jobs = [broken.job(3, 3 + 300 * short if short < PAGE else SIZE)]
        whole = expected(jobs)
        faulty.obey(Rule("read", match="model", short=short))
        assert outcome(jobs, mode) == (whole, {})

    def test_a_single_short_read_inside_a_page_does_not_end_direct_reading(
        self, faulty: FaultFilesystem, broken: Plain
    ) -> None:
        faulty.obey(Rule("read", match="model", short=PAGE + 1, times=1))
        assert outcome([broken.job(0)], "direct") == (expected([broken.job(0)]), {})

    @every_mode
    def test_a_lost_disk_is_an_io_error_and_not_sigbus(self, volume: SmallFilesystem, mode: Strategy) -> None:
        """Touching a mapped page of a lost disk would raise SIGBUS."""
        source = Plain.at(written(volume.path / "model.safetensors", 40 * MiB))
        make_cold(Path(source.path))
        with read(source.cut(HUGE), window=HUGE, mode=mode) as reading:
            next(reading)
            assert volume.image
            os.truncate(volume.image, MiB)  # the device behind the loop ends before the file's data
            with pytest.raises(LocalIOError, match=r"model\.safetensors: input/output error"):
                list(reading)
        gc.collect()  # a mapping would keep the volume busy

    @every_mode
    def test_a_stale_file_handle_is_a_replaced_file(
        self, volume: SmallFilesystem, mode: Strategy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Plain.at(written(volume.path / "model.safetensors", HUGE))

        def stale(*_: object) -> int:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        monkeypatch.setattr(os, "preadv", stale)
        monkeypatch.setattr(access, "bring_in", lambda *_: errno.ESTALE)
        with pytest.raises(FileReplaced, match="NFS"):
            outcome([source.job(0)], mode)


def truncate(path: Path) -> None:
    os.truncate(path, 5 * MiB)


def write_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(30 * MiB)
        file.write(b"new")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


class TestChangedFiles:
    @every_mode
    @pytest.mark.parametrize("change", [truncate, write_into, append])
    def test_a_file_that_changes_during_the_read_is_an_error(
        self, tmp_path: Path, mode: Strategy, change: Callable[[Path], None]
    ) -> None:
        path = written(tmp_path / "model.safetensors", 40 * MiB)
        with read(Plain.at(path).cut(HUGE), window=HUGE, mode=mode) as reading:
            next(reading)
            change(path)
            with pytest.raises(FileReplaced, match=r"model\.safetensors") as caught:
                list(reading)
            assert caught.value.retryable

    @every_mode
    def test_a_file_renamed_over_the_open_one_is_not_mixed_in(self, tmp_path: Path, mode: Strategy) -> None:
        path = written(tmp_path / "model.safetensors", 20 * MiB)
        jobs = Plain.at(path).cut(HUGE)
        old = expected(jobs)
        with read(jobs, window=HUGE, mode=mode) as reading:
            found = [bytes(next(reading)[1])]
            written(tmp_path / "new.safetensors", 21 * MiB).replace(path)
            found += [bytes(view) for _, view in reading]
        assert found == old

    @every_mode
    def test_a_file_replaced_before_it_is_opened_is_an_error(self, tmp_path: Path, mode: Strategy) -> None:
        source = Plain.at(written(tmp_path / "model.safetensors", HUGE))
        written(tmp_path / "new.safetensors", HUGE).replace(source.path)
        with pytest.raises(FileReplaced, match="replaced"):
            outcome([source.job(0)], mode)

    @every_mode
    @pytest.mark.parametrize(("size", "stop"), [(SIZE, SIZE + 1), (8192, 9000), (8192, 10 * MiB), (0, 5), (100, 101)])
    def test_a_file_that_ends_too_early_is_an_error(self, tmp_path: Path, mode: Strategy, size: int, stop: int) -> None:
        source = Careless.at(written(tmp_path / "model.safetensors", size))
        with pytest.raises(FileReplaced, match=f"ends at byte {size};"):
            outcome([source.job(0, stop)], mode)

    def test_a_mapped_file_that_is_truncated_is_an_error(self, tmp_path: Path) -> None:
        path = written(tmp_path / "model.safetensors", 40 * MiB)
        with read(Careless.at(path).cut(HUGE), window=HUGE, mode="mmap") as reading:
            next(reading)
            truncate(path)
            with pytest.raises(FileReplaced, match=f"ends at byte {5 * MiB};"):
                list(reading)


def refuse_direct_reads(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Refuse O_DIRECT reads, like a device with blocks larger than a page."""
    plain, count = os.preadv, 0

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal count
        if direct(descriptor):
            count += 1
            if count > after:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return plain(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)


def direct(descriptor: int) -> bool:
    with open(f"/proc/self/fdinfo/{descriptor}") as file:
        flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    return bool(int(flags, 8) & os.O_DIRECT)


class TestRefusal:
    def test_a_filesystem_without_o_direct_is_read_through_the_page_cache(
        self, mount: Callable[..., Path], tmp_path: Path
    ) -> None:
        source = Plain.at(written(mount(tmp_path / "ramfs", "-t", "ramfs", "ramfs") / "model.safetensors", SIZE))
        found, fallbacks = outcome(source.cut(MiB), "direct")
        assert found == expected(source.cut(MiB))
        assert fallbacks == {source.path: "O_DIRECT was refused (invalid argument)"}

    @pytest.mark.parametrize("after", [0, 2])
    def test_a_later_refusal_of_o_direct_falls_back_to_the_page_cache(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        source = Plain.at(written(tmp_path / "model.safetensors", 40 * MiB))
        refuse_direct_reads(monkeypatch, after=after)
        found, fallbacks = outcome(source.cut(5 * MiB), "direct")
        assert found == expected(source.cut(5 * MiB))
        assert "O_DIRECT was refused at offset" in fallbacks[source.path]

    def test_a_file_that_cannot_be_mapped_is_read(self) -> None:
        source = Careless.at(Path("/sys/kernel/notes"))  # sysfs maps no files
        assert source.size
        found, fallbacks = outcome(source.cut(16), "mmap")
        assert found == expected(source.cut(16))
        assert fallbacks == {source.path: "mapping was refused (no such device)"}

    def test_an_old_kernel_reads_instead_of_mapping(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = Plain.at(written(tmp_path / "model.safetensors", SIZE))
        monkeypatch.setattr(access, "can_bring_in", lambda: False)
        found, fallbacks = outcome(source.cut(MiB), "mmap")
        assert found == expected(source.cut(MiB))
        assert "Linux 5.14" in fallbacks[source.path]

    def test_direct_reading_leaves_the_page_cache_empty(self, volume: SmallFilesystem) -> None:
        """An empty page cache shows that O_DIRECT was not refused, and that the ends of the file were read directly too."""
        path = written(volume.path / "model.safetensors", SIZE)
        source = Plain.at(path)
        make_cold(path)
        with read([source.job(777, SIZE)], mode="direct") as reading:
            assert [len(view) for _, view in reading] == [SIZE - 777]
        with path.open("rb") as file:
            assert measure(file.fileno()).resident == 0


def test_an_unexpected_error_reaches_the_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Plain.at(written(tmp_path / "model.safetensors", SIZE))

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ZeroDivisionError):
        outcome([source.job(0)], "buffered")
