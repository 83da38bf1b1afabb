"""Who holds a lease, and when that holder is proven dead.

An owner's name is its whole identity: boot id, PID namespace, pid, start time and a random part, joined by dots. Only a
process of the same boot and the same PID namespace can look up the pid; anywhere else silence is judged by the lease's
counter alone, and what the former owner held is then used with the distrust `salvage` explains.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    boot: str
    namespace: str
    pid: int
    started: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.boot}.{self.namespace}.{self.pid}.{self.started}.{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """None for a name that is not an owner's."""
        try:
            boot, namespace, pid, started, nonce = text.split(".")
            owner = cls(boot, namespace, int(pid), int(started), nonce)
        except ValueError:
            return None
        # Others write names here too: a pid that no kernel has is no pid, and 0 or less would mean a process group.
        return owner if 0 < owner.pid <= _LARGEST_PID else None

    @classmethod
    def new(cls) -> Owner:
        """This process, once more: each lease has an owner of its own, so threads exclude each other too."""
        pid = os.getpid()
        return cls(_boot_id(), _pid_namespace(), pid, _start_time(pid) or 0, uuid.uuid4().hex[:12])

    @property
    def is_this_process(self) -> bool:
        mine = (_boot_id(), _pid_namespace(), os.getpid(), _start_time(os.getpid()))
        return (self.boot, self.namespace, self.pid, self.started) == mine

    @property
    def of_this_boot(self) -> bool:
        """Whether this kernel ran it, in whichever container."""
        return self.boot == _boot_id() != ""

    def proven_dead(self) -> bool:
        """True only if this kernel, in this PID namespace, says that the process is gone or a zombie."""
        if "" in (self.boot, self.namespace) or (self.boot, self.namespace) != (_boot_id(), _pid_namespace()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # somebody else's process: it is there
        started = _start_time(self.pid)
        return started is not None and started != self.started


_GONE = -1
_LARGEST_PID = 1 << 22
"""The kernel's PID_MAX_LIMIT on 64 bits, include/linux/threads.h."""


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` started; `_GONE` for a zombie; None when /proc won't tell (hidepid)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()  # a process may give itself a name in any encoding, or in none
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
