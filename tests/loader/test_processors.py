"""As many threads as are worth it: what the cgroup grants counts, not what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loader.processors import processors, reading_threads

V2 = "20 1 0:18 / /sys/fs/cgroup rw,relatime - cgroup2 none rw\n"
V1 = "20 1 0:18 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture(autouse=True)
def _sixty_four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


def machine(root: Path, membership: str, mounts: str, files: dict[str, str]) -> Path:
    files = {"proc/self/cgroup": membership, "proc/self/mountinfo": mounts} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class TestProcessors:
    def test_without_a_quota_all_that_are_allowed(self, tmp_path: Path) -> None:
        assert processors(machine(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"})) == 64

    @pytest.mark.parametrize(("quota", "expected"), [("250000 100000", 2), ("10000 100000", 1), ("800000 100000", 8)])
    def test_v2(self, tmp_path: Path, quota: str, expected: int) -> None:
        assert processors(machine(tmp_path, "0::/pod\n", V2, {"sys/fs/cgroup/pod/cpu.max": quota})) == expected

    def test_v2_the_least_of_all_above(self, tmp_path: Path) -> None:
        files = {"sys/fs/cgroup/pod/main/cpu.max": "max 100000", "sys/fs/cgroup/pod/cpu.max": "300000 100000"}
        assert processors(machine(tmp_path, "0::/pod/main\n", V2, files)) == 3

    @pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("-1", 64)])
    def test_v1(self, tmp_path: Path, quota: str, expected: int) -> None:
        files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota, "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
        assert processors(machine(tmp_path, "4:cpu,cpuacct:/\n", V1, files)) == expected

    def test_nothing_readable_is_no_quota(self, tmp_path: Path) -> None:
        assert processors(tmp_path) == 64


class TestThreads:
    @pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 4), ("800000 100000", 8), ("6400000 100000", 16)])
    def test_a_local_disk_needs_a_few_and_memory_the_processors(self, tmp_path: Path, quota: str, expected: int) -> None:
        root = machine(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": quota})
        assert (reading_threads("ext4", root), reading_threads("tmpfs", root)) == (expected, expected)

    def test_a_network_needs_more_however_few_processors_there_are(self, tmp_path: Path) -> None:
        root = machine(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/cpu.max": "100000 100000"})
        assert reading_threads("nfs4", root) == reading_threads("fuse.juicefs", root) == 16
