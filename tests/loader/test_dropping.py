"""A mount that gives up a file's pages whenever it is opened: nothing is called warm there, and nothing is read for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.events import silent
from fetcher.testing.checkpoint import make_checkpoint
from loader.allowance import Allowance
from loader.errors import PagesDropped
from loader.pinning import Pin
from tests.cli.conftest import last_line
from tests.lab.command import run_loader
from tests.lab.faultfs import Pages
from tests.lab.faults import fault_filesystem
from tests.loader.conftest import MiB, written

pytestmark = pytest.mark.page_cache

SIZE = 4 * MiB


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory of weights, seen through FUSE with the page cache as the parameter says."""
    pages: Pages = request.param
    with fault_filesystem(tmp_path / "fuse", pages=pages) as filesystem:
        (filesystem.source / "model").mkdir()
        written(filesystem.source / "model" / "weights.gguf.part", SIZE).rename(filesystem.source / "model" / "weights.bin")
        yield filesystem.path / "model"


dropped = pytest.mark.parametrize("mounted", ["dropped at each open"], indirect=True)
kept = pytest.mark.parametrize("mounted", ["kept"], indirect=True)


@dropped
class TestDropped:
    def test_warm_ends_with_a_final_code_and_what_to_do(self, mounted: Path) -> None:
        done = run_loader("warm", str(mounted))
        assert done.returncode == 78
        assert last_line(done.stderr).startswith("PagesDropped: ")
        assert "mount it with keep-cache" in last_line(done.stderr)
        assert "`loader copy`" in last_line(done.stderr)

    def test_pin_never_says_ready_and_ends_with_the_same(self, mounted: Path) -> None:
        pin = Pin([str(mounted)], threads=1, on_event=silent)
        try:
            with pytest.raises(PagesDropped):
                pin.check()
            assert not pin.state.ready
        finally:
            pin.close()
        done = run_loader("pin", str(mounted))
        assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (78, "PagesDropped")

    def test_a_copy_elsewhere_works(self, mounted: Path, tmp_path: Path) -> None:
        assert run_loader("copy", str(mounted), str(tmp_path / "copy")).returncode == 0
        assert run_loader("warm", str(tmp_path / "copy")).returncode == 0


@kept
class TestKept:
    def test_warm_and_pin_work(self, mounted: Path) -> None:
        assert run_loader("warm", str(mounted)).returncode == 0
        pin = Pin([str(mounted)], threads=1, on_event=silent)
        try:
            pin.check()
            assert pin.state.ready
        finally:
            pin.close()


@pytest.mark.parametrize("mounted", ["uncached"], indirect=True)
class TestNoPages:
    """FUSE with direct_io: mmap is ENODEV."""

    def test_warm_and_pin_end_with_a_final_code_and_what_to_do(self, mounted: Path) -> None:
        for command in ("warm", "pin"):
            done = run_loader(command, str(mounted))
            assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (78, "PagesDropped")
            assert "its files can't be mapped" in last_line(done.stderr)
            assert "`loader copy`" in last_line(done.stderr)

    @pytest.mark.parametrize("strategy", ["auto", "mmap", "direct"])
    def test_tensors_are_read_all_the_same(self, mounted: Path, strategy: str) -> None:
        (mounted / "weights.bin").unlink()
        make_checkpoint(mounted, shards=1, shard_size=MiB)
        assert run_loader("load", str(mounted), "--strategy", strategy).returncode == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestAllowance:
    def test_what_is_spent_comes_back_within_an_hour(self) -> None:
        clock = Clock()
        allowance = Allowance(100, clock)
        assert allowance.has(100)
        allowance.spend(100)
        assert not allowance.has(1)
        clock.now += 1800
        assert (allowance.has(50), allowance.has(51)) == (True, False)
        clock.now += 36_000
        assert (allowance.has(100), allowance.has(101)) == (True, False)

    def test_more_than_was_left_is_owed(self) -> None:
        clock = Clock()
        allowance = Allowance(100, clock)
        allowance.spend(300)
        clock.now += 3600
        assert not allowance.has(1)
        clock.now += 3600 + 36
        assert allowance.has(1)
