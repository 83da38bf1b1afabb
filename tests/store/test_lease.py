"""One owner at a time, without a lock: acquiring a lease, taking it over, and losing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from fetcher.errors import LeaseLost, NewerFormat
from fetcher.filesystem import MOST_NAMES
from fetcher.store.keyed import finish_exchanges
from fetcher.store.lease import Lease, Watch, acquire, observe, take_over
from fetcher.store.owner import Owner
from tests.lab.filesystems import MiB
from tests.lab.fixtures import MakeFilesystem

STALE = 60.0


class Clock:
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def acquired(staging: Path, clock: Clock | None = None) -> Lease:
    lease = acquire(staging, "key", stale=STALE, clock=clock or Clock())
    assert lease is not None
    return lease


def taken_over(staging: Path) -> Lease:
    seen = observe(staging / "key")
    assert seen is not None
    lease = take_over(staging / "key", seen, stale=STALE)
    assert lease is not None
    return lease


def owned_by(lease: Lease, owner: Owner) -> None:
    """Make it look as if `owner` had acquired `lease`."""
    lease.data.rename(lease.directory / f"data.{owner}")
    (lease.directory / f"lease.{lease.owner}").rename(lease.directory / f"lease.{owner}")


def on_another_node() -> Owner:
    """An owner whose death this kernel cannot prove: its boot id is another one."""
    return replace(Owner.new(), boot="0123456789abcdef")


class TestAcquiring:
    def test_a_held_lease_cannot_be_acquired_again(self, tmp_path: Path) -> None:
        acquired(tmp_path)
        assert acquire(tmp_path, "key", stale=STALE) is None
        assert acquire(tmp_path, "another", stale=STALE) is not None

    def test_one_of_eight_threads_acquires_the_lease(self, tmp_path: Path) -> None:
        barrier = Barrier(8)

        def contend(_: int) -> Lease | None:
            barrier.wait()
            return acquire(tmp_path, "key", stale=STALE)

        with ThreadPoolExecutor(8) as pool:
            won = [lease for lease in pool.map(contend, range(8)) if lease is not None]
        assert [lease.owner for lease in won] == [getattr(observe(tmp_path / "key"), "owner", None)]

    def test_a_dissolved_lease_leaves_nothing_and_can_be_acquired_again(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        (lease.data / "nested").mkdir()
        (lease.data / "nested" / "file").write_bytes(b"staged")
        lease.dissolve()
        assert not list(tmp_path.iterdir())
        assert observe(tmp_path / "key") is None
        acquired(tmp_path)

    def test_a_lease_can_be_acquired_after_its_data_was_published(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        lease.prepare_to_place()
        lease.data.rename(tmp_path / "published")
        assert not list(lease.directory.iterdir())
        acquired(tmp_path)

    def test_drafts_of_dead_owners_are_removed_and_all_others_are_kept(self, tmp_path: Path) -> None:
        dead, alive, remote = replace(Owner.new(), pid=ended_process()), Owner.new(), on_another_node()
        acquired(tmp_path).dissolve()
        held = acquired(tmp_path / "other")  # an active owner of this process
        for name, owner in (("tmp.1", dead), ("tmp.2", held.owner), ("tmp.3", remote)):
            (tmp_path / name / f"data.{owner}").mkdir(parents=True)
        (tmp_path / "tmp.4").mkdir()
        acquired(tmp_path)
        assert sorted(path.name for path in tmp_path.glob("tmp.*")) == ["tmp.2", "tmp.3", "tmp.4"]
        assert alive.is_this_process


class TestTakingOver:
    def test_one_of_eight_threads_takes_over_the_lease(self, tmp_path: Path) -> None:
        acquired(tmp_path).release()
        seen = observe(tmp_path / "key")
        assert seen is not None
        barrier = Barrier(8)

        def contend(_: int) -> Lease | None:
            barrier.wait()
            return take_over(tmp_path / "key", seen, stale=STALE)

        with ThreadPoolExecutor(8) as pool:
            (won,) = [lease for lease in pool.map(contend, range(8)) if lease is not None]
        won.renew()

    def test_a_released_lease_is_abandoned_and_its_inodes_are_reusable(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        (lease.data / "file").write_bytes(b"staged")
        lease.release()
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert seen.abandoned
        successor = taken_over(tmp_path)
        assert successor.inodes_reusable
        assert (successor.data / "file").read_bytes() == b"staged"

    def test_a_living_owner_is_not_abandoned(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert (seen.owner, seen.abandoned) == (lease.owner, False)

    def test_the_lease_of_a_dead_owner_is_abandoned_and_its_inodes_are_reusable(self, tmp_path: Path) -> None:
        owned_by(acquired(tmp_path), replace(Owner.new(), pid=ended_process()))
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert seen.abandoned
        assert taken_over(tmp_path).inodes_reusable

    def test_a_pid_that_another_process_has_now_proves_its_owner_dead(self) -> None:
        assert replace(Owner.new(), started=1).proven_dead()
        assert not Owner.new().proven_dead()

    def test_the_lease_of_an_owner_on_another_node_is_not_abandoned_and_its_inodes_are_not_reusable(
        self, tmp_path: Path
    ) -> None:
        owned_by(acquired(tmp_path), replace(on_another_node(), pid=ended_process()))
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert not seen.abandoned
        assert not taken_over(tmp_path).inodes_reusable

    def test_inodes_of_an_earlier_owner_stay_unusable_after_an_interrupted_takeover(self, tmp_path: Path) -> None:
        """The first of three owners may still write, and the second did not copy its files."""
        owned_by(acquired(tmp_path), on_another_node())
        between = taken_over(tmp_path)
        between.release()
        successor = taken_over(tmp_path)
        assert not successor.inodes_reusable
        successor.forget_previous_owners()
        successor.release()
        assert taken_over(tmp_path).inodes_reusable

    def test_a_directory_without_data_can_be_acquired_after_a_wait(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        lease.data.rmdir()
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert (seen.owner, seen.abandoned) == (None, False)
        assert take_over(tmp_path / "key", seen, stale=STALE) is None
        acquired(tmp_path)

    def test_a_directory_left_by_a_kill_during_removal_can_be_acquired_at_once(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            owner = replace(Owner.new(), pid=process.pid, started=1)
        owned_by(lease, owner)
        (lease.directory / f"data.{owner}").rmdir()
        seen = observe(tmp_path / "key")
        assert seen is not None
        assert (seen.owner, seen.abandoned) == (None, True)
        assert take_over(tmp_path / "key", seen, stale=STALE) is None
        acquired(tmp_path)

    def test_a_full_volume_leaves_no_draft_and_no_lease(self, small_filesystem: MakeFilesystem) -> None:
        volume = small_filesystem("tmpfs", size=MiB, inodes=4)  # root, staging, draft, data: no inode for the heartbeat
        with pytest.raises(OSError, match="No space left"):
            acquire(volume.path / "staging", "key", stale=STALE)
        assert list((volume.path / "staging").iterdir()) == []


class TestOtherVersions:
    """A heartbeat of a later format: others wait for its owner, but cannot take over from it."""

    def of_later_version(self, lease: Lease, counter: int) -> None:
        fields = {"format_version": 2, "version": "9.0", "counter": counter}
        (lease.directory / f"lease.{lease.owner}").write_text(json.dumps(fields))

    def test_its_renewals_are_seen(self, tmp_path: Path) -> None:
        lease, watch = acquired(tmp_path), Watch()
        for counter, now in enumerate((0.0, 59.0, 118.0)):
            self.of_later_version(lease, counter)
            seen = observe(tmp_path / "key")
            assert seen is not None
            assert not seen.abandoned
            assert watch.silence(seen, now) == 0.0

    def test_a_takeover_is_refused_and_leaves_everything_unchanged(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        self.of_later_version(lease, 1)
        seen = observe(tmp_path / "key")
        assert seen is not None
        with pytest.raises(NewerFormat, match=r"weightlift 9\.0"):
            take_over(tmp_path / "key", seen, stale=STALE)
        assert lease.data.is_dir()


class TestManyNames:
    """A directory on a shared volume has thousands of foreign names: only a few of them are held in memory."""

    COUNT = 30_000

    def add_names(self, directory: Path, prefix: str) -> None:
        for number in range(self.COUNT):
            os.close(os.open(directory / f"{prefix}{number}", os.O_CREAT, 0o644))

    def peak(self, action: Callable[[], object]) -> int:
        """The peak of Python's memory during `action`, in bytes."""
        tracemalloc.start()
        try:
            action()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def test_in_a_lease(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        self.add_names(lease.directory, "theirs.")
        seen = []
        assert self.peak(lambda: seen.append(observe(lease.directory))) < MiB
        assert [each.owner for each in seen if each] == [lease.owner]
        lease.release()
        assert self.peak(lambda: taken_over(tmp_path)) < MiB

    def test_too_many_names_of_previous_owners_make_inodes_unusable(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        self.add_names(lease.directory, "journal.")
        lease.release()
        successors: list[Lease] = []
        assert self.peak(lambda: successors.append(taken_over(tmp_path))) < 4 * MiB
        assert len(successors[0].previous_owners) <= MOST_NAMES + 1
        assert not successors[0].inodes_reusable

    def test_foreign_names_in_staging_take_little_memory(self, tmp_path: Path) -> None:
        staging = tmp_path / ".fetcher" / "staging"
        staging.mkdir(parents=True)
        self.add_names(staging, "tmp.")
        assert self.peak(lambda: acquired(staging)) < MiB
        assert self.peak(lambda: finish_exchanges(tmp_path)) < MiB


class TestHeartbeats:
    def test_a_renewal_is_seen_and_shows_the_progress(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        before = observe(tmp_path / "key")
        lease.renew(fetched=5, total=10)
        after = observe(tmp_path / "key")
        assert before is not None
        assert after is not None
        assert before.heartbeat != after.heartbeat
        assert (after.fetched, after.total) == (5, 10)

    def test_silence_is_measured_by_the_waiters_own_clock(self, tmp_path: Path) -> None:
        lease, watch = acquired(tmp_path), Watch()

        def silence(now: float) -> float:
            seen = observe(tmp_path / "key")
            assert seen is not None
            return watch.silence(seen, now)

        assert silence(50_000.0) == 0.0
        assert silence(50_030.0) == 30.0
        os.utime(tmp_path / "key" / f"lease.{lease.owner}", (0, 0))  # the owner's clock must not matter
        assert silence(50_059.0) == 59.0
        lease.renew()
        assert silence(50_060.0) == 0.0

    def test_a_takeover_restarts_the_measured_silence(self, tmp_path: Path) -> None:
        acquired(tmp_path)
        watch = Watch()
        first = observe(tmp_path / "key")
        assert first is not None
        watch.silence(first, 0.0)
        taken_over(tmp_path)
        second = observe(tmp_path / "key")
        assert second is not None
        assert watch.silence(second, 59.0) == 0.0

    @pytest.mark.parametrize(("late", "lost"), [(STALE / 2, False), (STALE / 2 + 0.1, True)])
    def test_a_renewal_after_half_the_stale_time_loses_the_lease(
        self, tmp_path: Path, clock: Clock, late: float, lost: bool
    ) -> None:
        lease = acquired(tmp_path, clock)
        clock.now += late
        if not lost:
            lease.renew()
            return
        with pytest.raises(LeaseLost, match="the heartbeat could not be written"):
            lease.renew()
        clock.now -= late
        with pytest.raises(LeaseLost):
            lease.check()

    def test_an_owner_that_lost_its_lease_detects_it_and_does_not_touch_the_successors_files(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        successor = taken_over(tmp_path)
        with pytest.raises(LeaseLost, match="took over"):
            lease.renew()
        lease.release()
        lease.dissolve()
        successor.renew()
        assert successor.data.is_dir()

    def test_an_owner_that_lost_its_lease_does_not_create_its_heartbeat_again(self, tmp_path: Path) -> None:
        lease = acquired(tmp_path)
        taken_over(tmp_path).forget_previous_owners()
        with pytest.raises(LeaseLost):
            lease.renew()
        assert not (tmp_path / "key" / f"lease.{lease.owner}").exists()

    def test_placing_file_by_file_may_take_half_the_stale_time_without_a_heartbeat(self, tmp_path: Path, clock: Clock) -> None:
        """The heartbeat is removed before the directory is renamed. If the rename fails, the files are placed one by one."""
        lease = acquired(tmp_path, clock)
        lease.prepare_to_place()
        clock.now += STALE / 2
        lease.keep()
        clock.now += 1
        with pytest.raises(LeaseLost):
            lease.keep()

    def test_placing_stops_after_a_takeover(self, tmp_path: Path, clock: Clock) -> None:
        lease = acquired(tmp_path, clock)
        lease.prepare_to_place()
        taken_over(tmp_path)
        clock.now += 5
        with pytest.raises(LeaseLost, match="took over"):
            lease.keep()


def ended_process() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
