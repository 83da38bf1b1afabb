"""The directories of the cgroups that limit a process, on hosts and in containers."""

from __future__ import annotations

import pytest

from fetcher.host.cgroups import cgroup_directories
from fetcher.host.mounts import parse_mounts
from tests.host.machines import (
    HYBRID_MEMBERSHIP,
    HYBRID_MOUNTS,
    V1_CONTAINER,
    V1_POD_MEMBERSHIP,
    V1_POD_MOUNTS,
    V2_MOUNTS,
    V2_POD_MOUNTS,
)


class TestCgroupDirectories:
    def directories(self, membership: str, mounts: str) -> list[str]:
        return list(cgroup_directories(membership, parse_mounts(mounts), "memory"))

    def test_v2_own_cgroup_then_each_ancestor(self) -> None:
        assert self.directories("0::/pod/main\n", V2_MOUNTS) == [
            "/sys/fs/cgroup/pod/main",
            "/sys/fs/cgroup/pod",
            "/sys/fs/cgroup",
        ]

    def test_hybrid_both_hierarchies(self) -> None:
        assert self.directories(HYBRID_MEMBERSHIP, HYBRID_MOUNTS) == [
            "/sys/fs/cgroup/memory/process_api/8b1b75c37269e9310ae36315a65ffefb",
            "/sys/fs/cgroup/memory/process_api",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/unified",
        ]

    def test_v1_own_cgroup_in_a_container(self) -> None:
        assert self.directories(V1_POD_MEMBERSHIP, V1_POD_MOUNTS) == ["/sys/fs/cgroup/memory"]
        assert self.directories(f"11:memory:{V1_CONTAINER}/child\n", V1_POD_MOUNTS) == [
            "/sys/fs/cgroup/memory/child",
            "/sys/fs/cgroup/memory",
        ]

    @pytest.mark.parametrize("path", ["/../other", "/elsewhere"])
    def test_a_cgroup_outside_the_mount_is_its_root(self, path: str) -> None:
        mounts = V2_POD_MOUNTS.replace("0:27 / /sys", "0:27 /kubepods /sys")
        assert self.directories(f"0::{path}\n", mounts) == ["/sys/fs/cgroup"]

    def test_a_mount_from_outside_the_namespace(self) -> None:
        """Recorded after `unshare --cgroup`, with the host's mount still present."""
        assert self.directories("0::/\n", "27 26 0:18 /../.. /sys/fs/cgroup rw,relatime - cgroup2 none rw\n") == [
            "/sys/fs/cgroup"
        ]

    def test_without_a_mount_there_are_none(self) -> None:
        assert self.directories(HYBRID_MEMBERSHIP, "23 27 0:22 / /sys rw - sysfs sys rw\n") == []
