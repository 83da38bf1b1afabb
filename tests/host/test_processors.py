"""The number of processors is limited by the cgroups' quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher.host.processors import cpu_count, cpu_quota
from tests.host.machines import (
    HYBRID_MEMBERSHIP,
    HYBRID_MOUNTS,
    V1_POD_MEMBERSHIP,
    V1_POD_MOUNTS,
    V2_MOUNTS,
    V2_POD_MOUNTS,
    machine,
)
from tests.lab.cgroups import made_cgroup
from tests.loader.conftest import in_child

POD, MAIN = "/sys/fs/cgroup/pod", "/sys/fs/cgroup/pod/main"


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has eight processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


class TestQuota:
    @pytest.mark.parametrize(
        ("files", "quota"),
        [
            ({"cpu.max": "150000 100000\n"}, 1.5),
            ({"cpu.max": "max 100000\n"}, None),
            ({"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}, 0.5),
            ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
            ({"cpu.max": "nonsense"}, None),
            ({"cpu.max": "100000 0\n"}, None),
            ({}, None),
        ],
    )
    def test_the_kernels_formats_are_parsed(self, files: dict[str, str], quota: float | None) -> None:
        assert cpu_quota(files) == quota


class TestRecordedMachines:
    def test_without_a_quota_it_is_the_affinity_of_the_process(self, tmp_path: Path) -> None:
        groups = {POD: {"cpu.max": "max 100000\n"}}
        assert cpu_count(machine(tmp_path, membership="0::/pod\n", mounts=V2_MOUNTS, groups=groups)) == 8

    def test_v2_an_ancestor_can_grant_less_than_the_own_cgroup(self, tmp_path: Path) -> None:
        groups = {POD: {"cpu.max": "200000 100000\n"}, MAIN: {"cpu.max": "400000 100000\n"}}
        assert cpu_count(machine(tmp_path, membership="0::/pod/main\n", mounts=V2_MOUNTS, groups=groups)) == 2

    def test_v2_in_a_container_the_visible_root_is_the_own_cgroup(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup": {"cpu.max": "300000 100000\n"}}
        assert cpu_count(machine(tmp_path, membership="0::/\n", mounts=V2_POD_MOUNTS, groups=groups)) == 3

    def test_v1_in_a_container(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup/cpu,cpuacct": {"cpu.cfs_quota_us": "250000\n", "cpu.cfs_period_us": "50000\n"}}
        assert cpu_count(machine(tmp_path, membership=V1_POD_MEMBERSHIP, mounts=V1_POD_MOUNTS, groups=groups)) == 5

    def test_v1_in_a_hybrid(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup/cpu": {"cpu.cfs_quota_us": "100000\n", "cpu.cfs_period_us": "100000\n"}}
        assert cpu_count(machine(tmp_path, membership=HYBRID_MEMBERSHIP, mounts=HYBRID_MOUNTS, groups=groups)) == 1

    def test_less_than_one_processor_counts_as_one(self, tmp_path: Path) -> None:
        groups = {POD: {"cpu.max": "10000 100000\n"}}
        assert cpu_count(machine(tmp_path, membership="0::/pod\n", mounts=V2_MOUNTS, groups=groups)) == 1

    def test_a_quota_above_the_number_of_processors_is_capped(self, tmp_path: Path) -> None:
        groups = {POD: {"cpu.max": "6400000 100000\n"}}
        assert cpu_count(machine(tmp_path, membership="0::/pod\n", mounts=V2_MOUNTS, groups=groups)) == 8

    def test_without_readable_files_there_is_no_quota(self, tmp_path: Path) -> None:
        assert cpu_count(tmp_path) == 8


def test_a_real_quota_is_detected() -> None:
    quota = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "300000"}
    with made_cgroup("cpu", v1=quota, v2={"cpu.max": "300000 100000"}) as group:
        assert in_child(lambda: (group / "cgroup.procs").write_text(str(os.getpid())), cpu_count) == 3
