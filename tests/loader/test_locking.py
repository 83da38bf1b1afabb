"""The kernel locks exactly the amount of memory that `lockable` predicts."""

from __future__ import annotations

import ctypes
import mmap
import resource
from pathlib import Path

import pytest

from fetcher.host.memory import Bound
from loader.residency.locking import UNLIMITED, lockable, raise_lock_limit
from tests.loader.conftest import MiB, as_nobody

pytestmark = pytest.mark.page_cache


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

    def test_the_limit_minus_the_locked_amount_is_left(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.NONE, self.FIRST_NAMESPACE)
        reason = "RLIMIT_MEMLOCK: limit 8.0 MiB, 2.0 MiB locked, and no CAP_IPC_LOCK"
        assert lockable(root, limit=8 * MiB) == Bound(6 * MiB, reason)
        assert lockable(root, limit=MiB).bytes == 0

    def test_the_capability_lifts_the_limit(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.ALL, self.FIRST_NAMESPACE)
        assert lockable(root, limit=8 * MiB).bytes == UNLIMITED

    def test_the_capability_has_no_effect_in_a_user_namespace(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.ALL, self.ROOTLESS)
        assert lockable(root, limit=8 * MiB).bytes == 6 * MiB

    def test_an_unlimited_rlimit_has_no_bound(self, tmp_path: Path) -> None:
        root = self.process(tmp_path, self.NONE, self.ROOTLESS)
        assert lockable(root, limit=resource.RLIM_INFINITY) == Bound(UNLIMITED, "RLIMIT_MEMLOCK: unlimited")

    def test_the_kernel_locks_exactly_the_predicted_amount(self) -> None:
        def look() -> tuple[int, int, int]:
            hard = min(MiB, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1])
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard // 2, hard))
            before = lockable().bytes
            raise_lock_limit()
            predicted = lockable().bytes
            libc = ctypes.CDLL(None, use_errno=True)
            view = mmap.mmap(-1, 2 * MiB)
            start = ctypes.byref(ctypes.c_char.from_buffer(view))
            too_much = libc.mlock(start, ctypes.c_size_t(predicted + mmap.PAGESIZE))
            just_enough = libc.mlock(start, ctypes.c_size_t(predicted))
            return predicted - before, too_much, just_enough

        gained, too_much, just_enough = as_nobody(look)
        assert gained > 0
        assert (too_much, just_enough) == (-1, 0)
