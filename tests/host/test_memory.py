"""The memory left is the minimum over the machine and all cgroups, read from recorded kernel files."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.host.memory import Bound, MemoryLeft, cgroup_bound, fields, machine_bound, memory_left
from tests.host.machines import (
    HYBRID_MEMBERSHIP,
    HYBRID_MOUNTS,
    V1_POD_MEMBERSHIP,
    V1_POD_MOUNTS,
    V1_STAT,
    V1_UNLIMITED,
    V2_MAIN,
    V2_MOUNTS,
    V2_POD,
    V2_POD_MOUNTS,
    V2_POD_STAT,
    machine,
)
from tests.loader.conftest import MiB, in_child, make_cold, make_warm, written

KiB, GiB = 1024, 1024 * MiB
USAGE = ("memory.usage_in_bytes", "memory.current")


class TestRecordedMachines:
    def test_without_limits_it_is_the_available_memory_of_the_machine(self, tmp_path: Path) -> None:
        root = machine(tmp_path, membership="0::/\n", mounts=V2_MOUNTS, groups={})
        available = Bound(24012372 * KiB, "machine: 22.9 GiB of 23.5 GiB available")
        assert memory_left(root) == MemoryLeft(available, available)

    def test_v2_counts_high_as_a_limit_and_clean_pages_as_free_but_not_tmpfs(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup/pod": V2_POD, "/sys/fs/cgroup/pod/main": V2_MAIN}
        root = machine(tmp_path, membership="0::/pod/main\n", mounts=V2_MOUNTS, groups=groups)
        used = 8798208 - 45056
        bound = Bound(48 * MiB - used, "cgroup /sys/fs/cgroup/pod/main: limit 48.0 MiB, 8.3 MiB used")
        assert memory_left(root) == MemoryLeft(bound, bound)

    def test_v2_an_ancestor_can_leave_less_than_the_own_cgroup(self, tmp_path: Path) -> None:
        crowded = {**V2_POD, "memory.current": str(90 * MiB)}
        groups = {"/sys/fs/cgroup/pod": crowded, "/sys/fs/cgroup/pod/main": V2_MAIN}
        left = memory_left(machine(tmp_path, membership="0::/pod/main\n", mounts=V2_MOUNTS, groups=groups))
        assert left.pages == Bound(6 * MiB + 45056, "cgroup /sys/fs/cgroup/pod: limit 96.0 MiB, 90.0 MiB used")

    def test_v2_in_a_container_the_visible_root_is_the_own_cgroup(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup": V2_MAIN}
        left = memory_left(machine(tmp_path, membership="0::/\n", mounts=V2_POD_MOUNTS, groups=groups))
        assert left.pages.reason == "cgroup /sys/fs/cgroup: limit 48.0 MiB, 8.3 MiB used"

    def test_v1_in_a_hybrid_every_ancestor_counts_up_to_the_mount(self, tmp_path: Path) -> None:
        own = "/sys/fs/cgroup/memory/process_api/8b1b75c37269e9310ae36315a65ffefb"
        usage = 363794432 + 1163264
        groups = {
            "/sys/fs/cgroup/memory": {"memory.limit_in_bytes": V1_UNLIMITED, "memory.usage_in_bytes": "1\n", "memory.stat": ""},
            "/sys/fs/cgroup/memory/process_api": {
                "memory.limit_in_bytes": str(GiB),
                "memory.usage_in_bytes": str(usage),
                "memory.stat": V1_STAT,
            },
            own: {"memory.limit_in_bytes": V1_UNLIMITED, "memory.usage_in_bytes": "5\n", "memory.stat": V1_STAT},
        }
        left = memory_left(machine(tmp_path, membership=HYBRID_MEMBERSHIP, mounts=HYBRID_MOUNTS, groups=groups))
        kept = usage - 232640512 - 131153920
        assert left.pages == Bound(GiB - kept, "cgroup /sys/fs/cgroup/memory/process_api: limit 1.0 GiB, 1.1 MiB used")

    def test_v1_a_container_learns_the_limit_of_an_invisible_ancestor(self, tmp_path: Path) -> None:
        groups = {
            "/sys/fs/cgroup/memory": {
                "memory.limit_in_bytes": V1_UNLIMITED,
                "memory.usage_in_bytes": str(400 * MiB),
                "memory.stat": V1_STAT.replace("9223372036854771712", str(512 * MiB), 1),
            }
        }
        left = memory_left(machine(tmp_path, membership=V1_POD_MEMBERSHIP, mounts=V1_POD_MOUNTS, groups=groups))
        assert left.pages.reason == "cgroup /sys/fs/cgroup/memory: limit 512.0 MiB, 53.1 MiB used"

    def test_with_strict_overcommit_committed_memory_counts(self, tmp_path: Path) -> None:
        root = machine(tmp_path, membership="0::/\n", mounts=V2_MOUNTS, groups={}, overcommit="2\n")
        left = memory_left(root)
        assert left.pages.bytes == 24012372 * KiB
        assert left.anonymous == Bound(12000000 * KiB, "vm.overcommit_memory=2: limit 11.8 GiB, 334.0 MiB committed")

    def test_without_readable_files_nothing_is_left(self, tmp_path: Path) -> None:
        assert memory_left(tmp_path).pages.bytes == 0


class TestBounds:
    @given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 1 << 50))
    def test_a_cgroup_leaves_between_zero_and_its_limit(self, limit: int, used: int, inactive: int, active: int) -> None:
        v2 = {
            "memory.max": str(limit),
            "memory.high": "max",
            "memory.current": str(used),
            "memory.stat": f"inactive_file {inactive}\nactive_file {active}\n",
        }
        v1 = {
            "memory.stat": f"total_inactive_file {inactive}\ntotal_active_file {active}\ninactive_file 7\n",
            "memory.limit_in_bytes": str(limit),
            "memory.usage_in_bytes": str(used),
        }
        bound = cgroup_bound("/group", v2)
        assert bound is not None
        assert bound.bytes == min(limit, max(0, limit - used + inactive + active))
        assert cgroup_bound("/group", v1) == bound

    def test_a_cgroup_without_a_limit_bounds_nothing(self) -> None:
        assert cgroup_bound("/group", {**V2_POD, "memory.max": "max\n"}) is None
        assert cgroup_bound("/sys/fs/cgroup", {"memory.stat": V2_POD_STAT}) is None
        unlimited = {"memory.limit_in_bytes": V1_UNLIMITED, "memory.usage_in_bytes": "5\n", "memory.stat": V1_STAT}
        assert cgroup_bound("/group", unlimited) is None

    @given(st.dictionaries(st.from_regex(r"[A-Za-z_]+(\([a-z]+\))?", fullmatch=True), st.integers(0, 1 << 60)))
    def test_fields_are_read_in_either_style(self, numbers: dict[str, int]) -> None:
        assert fields("".join(f"{name} {number}\n" for name, number in numbers.items())) == numbers
        inflated = {name: 1024 * number for name, number in numbers.items()}
        assert fields("".join(f"{name}:   {number} kB\n" for name, number in numbers.items())) == inflated

    @given(st.text())
    def test_any_text_is_parsed_without_an_error(self, text: str) -> None:
        assert all(number >= 0 for number in fields(text).values())

    def test_without_an_estimate_of_the_kernel_free_memory_counts(self) -> None:
        assert machine_bound({"MemTotal": 2 * GiB, "MemFree": GiB}).bytes == GiB


class TestThisMachine:
    def test_some_memory_is_left(self) -> None:
        left = memory_left()
        assert 0 < left.anonymous.bytes <= left.pages.bytes
        assert left.pages.bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    @pytest.mark.page_cache
    def test_in_a_small_cgroup_pages_are_free_and_allocations_are_not(self, cgroup: Path, tmp_path: Path) -> None:
        path = written(tmp_path / "model", 24 * MiB)
        make_cold(path)

        def look() -> tuple[MemoryLeft, MemoryLeft, MemoryLeft]:
            before, used = memory_left(), _usage(cgroup)
            make_warm(path)
            warm = memory_left()
            assert _usage(cgroup) - used > 20 * MiB
            ballast = mmap.mmap(-1, 16 * MiB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            ballast.write(bytes(16 * MiB))
            return before, warm, memory_left()

        before, warm, filled = in_child(lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid())), look)
        assert before.pages.reason.startswith(f"cgroup {cgroup}: limit 64.0 MiB, ")
        assert 40 * MiB < before.pages.bytes <= 64 * MiB
        assert abs(warm.pages.bytes - before.pages.bytes) < 6 * MiB
        assert warm.pages.bytes - filled.pages.bytes > 12 * MiB


def _usage(group: Path) -> int:
    return int(next(file for name in USAGE if (file := group / name).exists()).read_text())
