"""A mount that drops a file's pages at each open: nothing is reported as warm, and nothing is read forever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.events import silent
from fetcher.testing.checkpoint import make_checkpoint
from loader.errors import PagesDropped
from loader.residency.holding import Hold
from loader.residency.reread_budget import RereadBudget
from tests.cli.conftest import last_line
from tests.lab.command import run_loader
from tests.lab.faultfs import Pages
from tests.lab.faults import fault_filesystem
from tests.loader.conftest import MiB, written

pytestmark = pytest.mark.page_cache

SIZE = 4 * MiB


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory of weights on FUSE, with the page-cache mode of the parameter."""
    pages: Pages = request.param
    with fault_filesystem(tmp_path / "fuse", pages=pages) as filesystem:
        (filesystem.source / "model").mkdir()
        written(filesystem.source / "model" / "weights.gguf.part", SIZE).rename(filesystem.source / "model" / "weights.bin")
        yield filesystem.path / "model"


dropped = pytest.mark.parametrize("mounted", ["dropped at each open"], indirect=True)
kept = pytest.mark.parametrize("mounted", ["kept"], indirect=True)


@dropped
class TestDropped:
    def test_warm_fails_with_a_final_exit_code_and_the_remedy(self, mounted: Path) -> None:
        done = run_loader("warm", str(mounted))
        assert done.returncode == 78
        assert last_line(done.stderr).startswith("PagesDropped: ")
        assert "mount it with keep-cache" in last_line(done.stderr)
        assert "`loader copy`" in last_line(done.stderr)

    def test_hold_is_never_ready_and_fails_with_the_same_exit_code(self, mounted: Path) -> None:
        hold = Hold([str(mounted)], threads=1, on_event=silent)
        try:
            with pytest.raises(PagesDropped):
                hold.check()
            assert not hold.state.ready
        finally:
            hold.close()
        done = run_loader("hold", str(mounted))
        assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (78, "PagesDropped")

    def test_a_copy_on_another_filesystem_can_be_warmed(self, mounted: Path, tmp_path: Path) -> None:
        assert run_loader("copy", str(mounted), str(tmp_path / "copy")).returncode == 0
        assert run_loader("warm", str(tmp_path / "copy")).returncode == 0


@kept
class TestKept:
    def test_warm_and_hold_work(self, mounted: Path) -> None:
        assert run_loader("warm", str(mounted)).returncode == 0
        hold = Hold([str(mounted)], threads=1, on_event=silent)
        try:
            hold.check()
            assert hold.state.ready
        finally:
            hold.close()


@pytest.mark.parametrize("mounted", ["uncached"], indirect=True)
class TestNoPages:
    """FUSE with direct_io: mmap fails with ENODEV."""

    def test_warm_and_hold_fail_with_a_final_exit_code_and_the_remedy(self, mounted: Path) -> None:
        for command in ("warm", "hold"):
            done = run_loader(command, str(mounted))
            assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (78, "PagesDropped")
            assert "its files can't be mapped" in last_line(done.stderr)
            assert "`loader copy`" in last_line(done.stderr)

    @pytest.mark.parametrize("strategy", ["auto", "mmap", "direct"])
    def test_tensors_can_still_be_loaded(self, mounted: Path, strategy: str) -> None:
        (mounted / "weights.bin").unlink()
        make_checkpoint(mounted, shards=1, shard_size=MiB)
        assert run_loader("load", str(mounted), "--strategy", strategy).returncode == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestAllowance:
    def test_the_allowance_refills_within_an_hour(self) -> None:
        clock = Clock()
        allowance = RereadBudget(100, clock)
        assert allowance.has(100)
        allowance.spend(100)
        assert not allowance.has(1)
        clock.now += 1800
        assert (allowance.has(50), allowance.has(51)) == (True, False)
        clock.now += 36_000
        assert (allowance.has(100), allowance.has(101)) == (True, False)

    def test_overspending_leaves_a_debt(self) -> None:
        clock = Clock()
        allowance = RereadBudget(100, clock)
        allowance.spend(300)
        clock.now += 3600
        assert not allowance.has(1)
        clock.now += 3600 + 36
        assert allowance.has(1)
