"""What memory is left is the least that machine, cgroups and limits leave, as the kernels' own files say it."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader.memory import (
    UNLIMITED,
    Bound,
    MemoryLeft,
    cgroup_bound,
    cgroup_directories,
    fields,
    lockable,
    machine_bound,
    memory_left,
    raise_lock_limit,
)
from loader.mounts import parse_mounts
from tests.loader.conftest import MiB, as_nobody, in_child, make_cold, make_warm, written

KiB, GiB = 1024, 1024 * MiB

MEMINFO = """\
MemTotal:       24684096 kB
MemFree:        18812136 kB
MemAvailable:   24012372 kB
Buffers:           71160 kB
Active(file):    1003412 kB
HugePages_Total:       0
CommitLimit:    12342048 kB
Committed_AS:     342048 kB
"""

# Linux 6.1 in a virtual machine with cgroup v2 alone; 30 MiB of libraries were read and 8 MiB put on tmpfs.
V2_MOUNTS = """\
16 1 0:15 / / ro,relatime - hostfs root ro,/
18 16 0:16 / /proc rw,relatime - proc proc rw
19 16 0:17 / /sys rw,relatime - sysfs sys rw
20 19 0:18 / /sys/fs/cgroup rw,relatime - cgroup2 none rw
21 16 0:19 / /mnt rw,relatime - tmpfs tmpfs rw
"""
V2_POD_STAT = """\
anon 192512
file 8433664
kernel 110592
shmem 8388608
file_dirty 0
inactive_anon 8564736
active_anon 4096
inactive_file 45056
active_file 0
unevictable 0
slab_reclaimable 30072
"""
V2_POD = {"memory.max": "100663296\n", "memory.high": "max\n", "memory.current": "8810496\n", "memory.stat": V2_POD_STAT}
V2_MAIN = {
    "memory.max": "67108864\n",
    "memory.high": "50331648\n",
    "memory.current": "8798208\n",
    "memory.stat": V2_POD_STAT,
}

# Linux 6.18 with the controllers of v1, and a v2 hierarchy that has none.
HYBRID_MOUNTS = """\
23 27 0:22 / /sys rw,relatime - sysfs sys rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_MEMBERSHIP = """\
9:name=systemd:/
8:pids:/
4:memory:/process_api/8b1b75c37269e9310ae36315a65ffefb
1:cpu:/
0::/
"""
V1_STAT = """\
cache 363794432
rss 1163264
shmem 0
dirty 45056
inactive_anon 1155072
active_anon 8192
inactive_file 232640512
active_file 131153920
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771712
total_cache 363794432
total_rss 1163264
total_inactive_file 232640512
total_active_file 131153920
"""
USAGE = ("memory.usage_in_bytes", "memory.current")
V1_UNLIMITED = "9223372036854771712\n"

# A Kubernetes container under v1: it sees its own directory alone, under the path that the host knows.
V1_CONTAINER = "/kubepods/burstable/pod0a3c6d0e-5f1c-4a53-9d5c-5d0a5f0e8f9b/2f6c8d1f"
V1_POD_MEMBERSHIP = f"11:memory:{V1_CONTAINER}\n5:cpu,cpuacct:{V1_CONTAINER}\n1:name=systemd:{V1_CONTAINER}\n"
V1_POD_MOUNTS = f"""\
1370 1361 0:98 / / ro,relatime - overlay overlay ro,lowerdir=/var/lib/containerd/a/fs:/var/lib/containerd/b/fs
1379 1374 0:104 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
1384 1379 0:29 {V1_CONTAINER} /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec master:13 - cgroup cgroup rw,cpu,cpuacct
1387 1379 0:33 {V1_CONTAINER} /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,memory
"""

# A Kubernetes container under v2, with the cgroup namespace of its own that container runtimes give it.
V2_POD_MOUNTS = """\
1370 1361 0:98 / / ro,relatime - overlay overlay ro,lowerdir=/var/lib/containerd/a/fs
1375 1374 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
"""


def machine(root: Path, *, membership: str, mounts: str, groups: dict[str, dict[str, str]], overcommit: str = "0") -> Path:
    """A directory in which /proc and /sys are what some machine's are."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": membership,
        "proc/self/mountinfo": mounts,
        "proc/sys/vm/overcommit_memory": overcommit,
        **{f"{group.lstrip('/')}/{name}": text for group, texts in groups.items() for name, text in texts.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class TestRecordedMachines:
    def test_without_limits_it_is_what_the_machine_has_available(self, tmp_path: Path) -> None:
        root = machine(tmp_path, membership="0::/\n", mounts=V2_MOUNTS, groups={})
        available = Bound(24012372 * KiB, "machine: 22.9 GiB of 23.5 GiB available")
        assert memory_left(root) == MemoryLeft(available, available)

    def test_v2_counts_high_as_a_limit_and_clean_pages_as_free_but_not_tmpfs(self, tmp_path: Path) -> None:
        groups = {"/sys/fs/cgroup/pod": V2_POD, "/sys/fs/cgroup/pod/main": V2_MAIN}
        root = machine(tmp_path, membership="0::/pod/main\n", mounts=V2_MOUNTS, groups=groups)
        used = 8798208 - 45056
        bound = Bound(48 * MiB - used, "cgroup /sys/fs/cgroup/pod/main: limit 48.0 MiB, 8.3 MiB used")
        assert memory_left(root) == MemoryLeft(bound, bound)

    def test_v2_an_ancestor_may_leave_less_than_the_own_cgroup(self, tmp_path: Path) -> None:
        crowded = {**V2_POD, "memory.current": str(90 * MiB)}
        groups = {"/sys/fs/cgroup/pod": crowded, "/sys/fs/cgroup/pod/main": V2_MAIN}
        left = memory_left(machine(tmp_path, membership="0::/pod/main\n", mounts=V2_MOUNTS, groups=groups))
        assert left.pages == Bound(6 * MiB + 45056, "cgroup /sys/fs/cgroup/pod: limit 96.0 MiB, 90.0 MiB used")

    def test_v2_in_a_container_the_root_of_what_it_sees_is_its_own(self, tmp_path: Path) -> None:
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

    def test_v1_a_container_learns_of_a_limit_above_it_that_it_cannot_see(self, tmp_path: Path) -> None:
        groups = {
            "/sys/fs/cgroup/memory": {
                "memory.limit_in_bytes": V1_UNLIMITED,
                "memory.usage_in_bytes": str(400 * MiB),
                "memory.stat": V1_STAT.replace("9223372036854771712", str(512 * MiB), 1),
            }
        }
        left = memory_left(machine(tmp_path, membership=V1_POD_MEMBERSHIP, mounts=V1_POD_MOUNTS, groups=groups))
        assert left.pages.reason == "cgroup /sys/fs/cgroup/memory: limit 512.0 MiB, 53.1 MiB used"

    def test_where_memory_is_never_overcommitted_promises_count(self, tmp_path: Path) -> None:
        root = machine(tmp_path, membership="0::/\n", mounts=V2_MOUNTS, groups={}, overcommit="2\n")
        left = memory_left(root)
        assert left.pages.bytes == 24012372 * KiB
        assert left.anonymous == Bound(12000000 * KiB, "vm.overcommit_memory=2: limit 11.8 GiB, 334.0 MiB promised")

    def test_nothing_readable_is_nothing_left(self, tmp_path: Path) -> None:
        assert memory_left(tmp_path).pages.bytes == 0


class TestCgroupDirectories:
    def found(self, membership: str, mounts: str) -> list[str]:
        return list(cgroup_directories(membership, parse_mounts(mounts)))

    def test_v2_own_then_each_above(self) -> None:
        assert self.found("0::/pod/main\n", V2_MOUNTS) == [
            "/sys/fs/cgroup/pod/main",
            "/sys/fs/cgroup/pod",
            "/sys/fs/cgroup",
        ]

    def test_hybrid_both_hierarchies(self) -> None:
        assert self.found(HYBRID_MEMBERSHIP, HYBRID_MOUNTS) == [
            "/sys/fs/cgroup/memory/process_api/8b1b75c37269e9310ae36315a65ffefb",
            "/sys/fs/cgroup/memory/process_api",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/unified",
        ]

    def test_v1_what_a_container_sees_of_itself(self) -> None:
        assert self.found(V1_POD_MEMBERSHIP, V1_POD_MOUNTS) == ["/sys/fs/cgroup/memory"]
        assert self.found(f"11:memory:{V1_CONTAINER}/child\n", V1_POD_MOUNTS) == [
            "/sys/fs/cgroup/memory/child",
            "/sys/fs/cgroup/memory",
        ]

    @pytest.mark.parametrize("path", ["/../other", "/elsewhere"])
    def test_a_cgroup_outside_of_what_is_mounted(self, path: str) -> None:
        mounts = V2_POD_MOUNTS.replace("0:27 / /sys", "0:27 /kubepods /sys")
        assert self.found(f"0::{path}\n", mounts) == ["/sys/fs/cgroup"]

    def test_a_mount_from_outside_the_namespace(self) -> None:
        """Recorded after `unshare --cgroup` with the host's mount still there."""
        assert self.found("0::/\n", "27 26 0:18 /../.. /sys/fs/cgroup rw,relatime - cgroup2 none rw\n") == ["/sys/fs/cgroup"]

    def test_cgroups_that_are_not_mounted(self) -> None:
        assert self.found(HYBRID_MEMBERSHIP, "23 27 0:22 / /sys rw - sysfs sys rw\n") == []


class TestBounds:
    @given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.integers(0, 1 << 50))
    def test_a_cgroup_never_leaves_more_than_its_limit_nor_less_than_nothing(
        self, limit: int, used: int, inactive: int, active: int
    ) -> None:
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
    def test_any_text_is_read_without_complaint(self, text: str) -> None:
        assert all(number >= 0 for number in fields(text).values())

    def test_a_kernel_without_an_estimate(self) -> None:
        assert machine_bound({"MemTotal": 2 * GiB, "MemFree": GiB}).bytes == GiB


class TestThisMachine:
    def test_some_memory_is_left(self) -> None:
        left = memory_left()
        assert 0 < left.anonymous.bytes <= left.pages.bytes
        assert left.pages.bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

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


class TestLocking:
    STATUS = "Name:\tpython3\nVmLck:\t    2048 kB\nCapEff:\t{}\n"
    ALL = "000001fffeffffff"
    NONE = "0000000000000000"
    FIRST_NAMESPACE = "         0          0 4294967295\n"
    ROOTLESS = "         0       1000          1\n         1     100000      65536\n"

    def process(self, root: Path, capabilities: str, uid_map: str) -> Path:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/status").write_text(self.STATUS.format(capabilities))
        (root / "proc/self/uid_map").write_text(uid_map)
        return root

    def test_a_limit_less_what_is_locked(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.NONE, self.FIRST_NAMESPACE)
        reason = "RLIMIT_MEMLOCK: limit 8.0 MiB, 2.0 MiB locked, and no CAP_IPC_LOCK"
        assert lockable(root, limit=8 * MiB) == Bound(6 * MiB, reason)
        assert lockable(root, limit=MiB).bytes == 0

    def test_the_capability_lifts_it(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.ALL, self.FIRST_NAMESPACE)
        assert lockable(root, limit=8 * MiB).bytes == UNLIMITED

    def test_the_capability_is_worth_nothing_in_a_user_namespace(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.ALL, self.ROOTLESS)
        assert lockable(root, limit=8 * MiB).bytes == 6 * MiB

    def test_no_limit(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.NONE, self.ROOTLESS)
        assert lockable(root, limit=resource.RLIM_INFINITY) == Bound(UNLIMITED, "RLIMIT_MEMLOCK: unlimited")

    def test_what_the_kernel_locks_for_a_stranger_is_what_was_said(self) -> None:
        def look() -> tuple[int, int, int]:
            hard = min(MiB, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1])
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard // 2, hard))
            before = lockable().bytes
            raise_lock_limit()
            promised = lockable().bytes
            libc = ctypes.CDLL(None, use_errno=True)
            view = mmap.mmap(-1, 2 * MiB)
            start = ctypes.byref(ctypes.c_char.from_buffer(view))
            too_much = libc.mlock(start, ctypes.c_size_t(promised + mmap.PAGESIZE))
            just_enough = libc.mlock(start, ctypes.c_size_t(promised))
            return promised - before, too_much, just_enough

        gained, too_much, just_enough = as_nobody(look)
        assert gained > 0
        assert (too_much, just_enough) == (-1, 0)
