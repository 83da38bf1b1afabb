"""A cache with a limit: what `fetcher init` sets, and how a fetch makes room before its first byte."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.store.lease import acquire
from tests.lab.command import FETCHER, run_fetcher

MiB = 1024 * 1024
LONG_AGO = 1_600_000_000.0


class Cache:
    """A root with a limit, and models of some MiB to fetch into it."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "cache"
        self._models = directory / "models"

    def init(self, *words: str) -> None:
        done = run_fetcher("init", self.root, *words)
        assert done.returncode == 0, done.stderr

    def model(self, name: str, size: int = 4 * MiB) -> Path:
        model = self._models / name
        if not model.exists():
            model.mkdir(parents=True)
            (model / "model.bin").write_bytes(os.urandom(size))
        return model

    def fetch(self, name: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run_fetcher("fetch", self.model(name), "--cache-dir", self.root, *words, **more)

    def fetched(self, *names: str) -> None:
        """Fetch models that were last used long ago, the first one earliest."""
        for number, name in enumerate(names):
            done = self.fetch(name)
            assert done.returncode == 0, done.stderr
            moment = LONG_AGO + number
            os.utime(self.root / ".fetcher/usage" / self.key(name), (moment, moment))

    def key(self, name: str) -> str:
        return ArtifactRef(str(self.model(name))).key

    def present(self) -> set[str]:
        return {path.name for path in self._models.iterdir() if (self.root / self.key(path.name)).exists()}

    def used(self) -> int:
        return sum(path.lstat().st_blocks * 512 for path in self.root.rglob("*") if path.is_file())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


class TestInit:
    def test_a_root_is_created_and_its_limits_are_shown(self, cache: Cache) -> None:
        done = run_fetcher("init", cache.root, "--max-size", "80%", "--min-free", "10Gi")
        assert done.stdout.split("\n")[:3] == ["max size  80%", "min free  10.0 GiB", "min idle  1 h 0 min"]

    def test_limits_that_are_not_given_stay(self, cache: Cache) -> None:
        cache.init("--max-size", "1Gi", "--min-idle", "2h")
        done = run_fetcher("init", cache.root, "--min-free", "5%", "--json")
        fields = json.loads(done.stdout)
        assert (fields["max_size"], fields["min_free"], fields["min_idle"]) == (str(1024 * MiB), "5%", 7200.0)

    def test_a_limit_that_is_no_size_is_a_usage_error(self, cache: Cache) -> None:
        done = run_fetcher("init", cache.root, "--max-size", "lots")
        assert done.returncode == 64
        assert not cache.root.exists()


class TestRoom:
    def test_without_a_limit_a_fetch_deletes_nothing(self, cache: Cache) -> None:
        cache.fetched("a", "b", "c")
        assert cache.present() == {"a", "b", "c"}

    def test_the_least_recently_used_artifact_makes_room(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        cache.fetched("a", "b")
        os.utime(cache.root / ".fetcher/usage" / cache.key("a"), (LONG_AGO + 9, LONG_AGO + 9))
        done = cache.fetch("c", "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert f"evicted {cache.key('b')} to make room, 4.0 MiB" in done.stderr
        assert cache.present() == {"a", "c"}
        assert cache.used() <= 12 * MiB

    def test_a_hit_protects_from_eviction(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        cache.fetched("a", "b")
        assert cache.fetch("a").returncode == 0
        assert cache.fetch("c").returncode == 0
        assert cache.present() == {"a", "c"}

    def test_the_numbers_are_told_if_even_everything_unpinned_is_not_enough(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        cache.fetched("a", "b")
        assert run_fetcher("pin", cache.key("a"), "--cache-dir", cache.root).returncode == 0
        cache.model("large", 12 * MiB)
        done = cache.fetch("large")
        assert done.returncode == 73
        assert done.stderr.splitlines()[-1].startswith("OutOfSpace: no space left on device")
        for number in ("needed 12.0 MiB", "evictable 4.0 MiB", "pinned 4.0 MiB", "in use or used recently 0 B", "free "):
            assert number in done.stderr
        assert cache.present() == {"a", "b"}, "nothing is evicted for a fetch that is refused"

    def test_what_was_used_recently_makes_the_cache_busy_and_stays(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        assert cache.fetch("a").returncode == 0
        assert cache.fetch("b").returncode == 0
        done = cache.fetch("c")
        assert (done.returncode, done.stderr.splitlines()[-1].split(":")[0]) == (75, "CacheBusy")
        assert cache.present() == {"a", "b"}

    def test_an_open_artifact_is_passed_over(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        cache.fetched("a", "b")
        with (cache.root / cache.key("a") / "model.bin").open():
            assert cache.fetch("c").returncode == 0
        assert cache.present() == {"a", "c"}

    def test_an_engine_that_closed_its_files_keeps_its_model_by_a_hold(self, cache: Cache) -> None:
        cache.init("--max-size", "12Mi")
        pod = {"FETCHER_POD_UID": "6a1f6c1e-5a0a-4a53-8a44-000000000001"}
        cache.fetched("b")
        assert cache.fetch("served", env=pod).returncode == 0
        old = (LONG_AGO - 1000, LONG_AGO - 1000)
        os.utime(cache.root / ".fetcher/usage" / cache.key("served"), old)
        assert cache.fetch("c").returncode == 0
        assert cache.present() == {"served", "c"}
        run_fetcher("release", cache.key("served"), "--cache-dir", cache.root, env=pod)
        os.utime(cache.root / ".fetcher/usage" / cache.key("c"), (LONG_AGO, LONG_AGO))
        assert cache.fetch("d").returncode == 0
        assert cache.present() == {"c", "d"}

    def test_an_unfinished_fetch_counts_as_used(self, cache: Cache) -> None:
        cache.init("--max-size", "10Mi")
        lease = acquire(cache.root / ".fetcher/staging", "0" * 16, stale=60.0)
        assert lease is not None
        lease.reserve(8 * MiB)
        done = cache.fetch("a")
        assert (done.returncode, "being fetched 8.0 MiB" in done.stderr) == (75, True)
        lease.dissolve()
        assert cache.fetch("a").returncode == 0

    def test_free_space_is_kept_too(self, cache: Cache) -> None:
        cache.fetched("a")
        status = os.statvfs(cache.root)
        done = cache.fetch("b", "--min-free", str(status.f_blocks * status.f_frsize))
        assert (done.returncode, done.stderr.splitlines()[-1].split(":")[0]) == (73, "OutOfSpace")
        assert cache.present() == {"a"}


class TestFlagsOfAFetch:
    def test_on_a_root_without_a_limit_they_apply_to_this_fetch(self, cache: Cache) -> None:
        cache.fetched("a", "b")
        assert cache.fetch("c", "--max-size", "12Mi").returncode == 0
        assert cache.present() == {"b", "c"}

    def test_a_stricter_flag_refuses_and_evicts_nothing(self, cache: Cache) -> None:
        cache.init("--max-size", "100Mi")
        cache.fetched("a", "b")
        done = cache.fetch("c", "--max-size", "10Mi")
        assert (done.returncode, "limit given to this fetch" in done.stderr) == (73, True)
        assert cache.present() == {"a", "b"}

    def test_a_looser_flag_is_a_usage_error(self, cache: Cache) -> None:
        cache.init("--max-size", "10Mi")
        done = cache.fetch("a", "--max-size", "1Gi")
        assert (done.returncode, "--max-size 1.0 GiB is above the limit" in done.stderr) == (64, True)

    def test_a_destination_has_no_limits(self, cache: Cache, tmp_path: Path) -> None:
        done = run_fetcher("fetch", cache.model("a"), "--dest", tmp_path / "dest", "--max-size", "1Gi")
        assert (done.returncode, "--cache-dir" in done.stderr) == (64, True)


def test_fetches_that_start_together_do_not_exceed_the_limit_together(cache: Cache) -> None:
    cache.init("--max-size", "20Mi")
    names = [f"m{number}" for number in range(6)]
    words = [[*FETCHER, "fetch", str(cache.model(name)), "--cache-dir", str(cache.root)] for name in names]
    running = [subprocess.Popen(each, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for each in words]
    codes = []
    for process in running:
        _, errors = process.communicate(timeout=100)
        codes.append(process.returncode)
        assert process.returncode in (0, 75), errors
    assert codes.count(0) == 4, "four models of 4 MiB and the records fit into 20 MiB"
    assert cache.used() <= 20 * MiB


class TestUse:
    def test_a_hit_says_that_its_use_was_recorded(self, cache: Cache) -> None:
        cache.fetched("a")
        assert json.loads(cache.fetch("a", "--json").stdout)["use_recorded"] is True

    def test_a_hit_on_a_read_only_mount_says_that_it_was_not(self, cache: Cache, tmp_path: Path) -> None:
        cache.fetched("a")
        view = tmp_path / "view"
        view.mkdir()
        mounted = subprocess.run(["mount", "--bind", cache.root, view], check=False, capture_output=True)
        if mounted.returncode:
            pytest.skip("needs root to mount")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
            done = run_fetcher("fetch", cache.model("a"), "--cache-dir", view, "--json")
            assert json.loads(done.stdout)["use_recorded"] is False
        finally:
            subprocess.run(["umount", view], check=True)

    def test_a_hold_with_an_end_lapses(self, cache: Cache) -> None:
        assert cache.fetch("a", "--hold", "1h", env={"FETCHER_POD_UID": "pod-1"}).returncode == 0
        record = json.loads((cache.root / ".fetcher/usage" / f"{cache.key('a')}.hold.pod-1").read_text())
        assert record["until"] is not None

    def test_a_pod_whose_uid_is_no_name_is_a_usage_error(self, cache: Cache) -> None:
        assert cache.fetch("a", "--pod-uid", "../escape").returncode == 64
