"""The owner of a lease, and the proof that it is dead.

An owner's name is its whole identity: boot id, PID namespace, pid, start time and a random part, joined by dots. Only a
process of the same boot and PID namespace can look up the pid. All others watch the heartbeat's counter, and do not trust the
inodes of a silent owner (see `salvage`).
"""

from __future__ import annotations

import os
import uuid
from functools import cache
from pathlib import Path

from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Owner:
    """One owner of one lease. `started` is in clock ticks since boot."""

    boot: str
    namespace: str
    pid: int
    started: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.boot}.{self.namespace}.{self.pid}.{self.started}.{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner with the name `text`; None if it is not an owner's name."""
        try:
            boot, namespace, pid, started, nonce = text.split(".")
            owner = cls(boot, namespace, int(pid), int(started), nonce)
        except ValueError:
            return None
        # Other users may create names too. No kernel has a larger pid, and 0 or less would mean a process group.
        return owner if 0 < owner.pid <= _LARGEST_PID else None

    @classmethod
    def new(cls) -> Owner:
        """A new owner in this process. Each lease has its own, so threads exclude each other too."""
        pid = os.getpid()
        return cls(_boot_id(), _pid_namespace(), pid, _start_time(pid) or 0, uuid.uuid4().hex[:12])

    @property
    def is_this_process(self) -> bool:
        """Whether this process created it."""
        own = (_boot_id(), _pid_namespace(), os.getpid(), _start_time(os.getpid()))
        return (self.boot, self.namespace, self.pid, self.started) == own

    @property
    def of_this_boot(self) -> bool:
        """Whether it ran on this kernel, in any container."""
        return self.boot == _boot_id() != ""

    def proven_dead(self) -> bool:
        """Whether this kernel shows, in this PID namespace, that the process is gone or a zombie."""
        if "" in (self.boot, self.namespace) or (self.boot, self.namespace) != (_boot_id(), _pid_namespace()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # another user's process: it exists
        started = _start_time(self.pid)
        return started is not None and started != self.started


_GONE = -1
_LARGEST_PID = 1 << 22
"""The kernel's PID_MAX_LIMIT on 64 bits, include/linux/threads.h."""


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` started; `_GONE` for a zombie; None if /proc hides it (hidepid)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()  # the process's name in it may be invalid in any encoding
    except OSError:
        return None
    fields = line.rpartition(b")")[2].split()
    return _GONE if fields[0] in (b"Z", b"X") else int(fields[19])


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:16]
    except OSError:
        return ""


@cache
def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return ""
