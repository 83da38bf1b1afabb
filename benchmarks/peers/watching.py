"""How busy the processors were during a run, how long its fetches waited for one, and what they took."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import MiB

BUSIEST, LONGEST = 0.6, 0.1
"""A run is void if its nodes keep the processors busier, or wait longer for one: then the links are not what limits it."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """`busy`: share of all processors, with whatever else runs on the machine. `own`: the share of the nodes' processes.

    `waited`: the longest time that a thread of a fetch was ready and had no processor, as a share of the run.
    `memory`, `cpu`: the most resident bytes of a fetch, and its most processors on average.
    """

    busy: float
    own: float
    waited: float
    memory: int
    cpu: float

    @property
    def void(self) -> bool:
        return self.own > BUSIEST or self.waited > LONGEST

    def __str__(self) -> str:
        return f"{self.busy:.0%} busy, {self.own:.0%} by nodes; a fetch waited {self.waited:.0%}, {self.memory / MiB:.0f} MiB"


class Watch:
    """Looks at processes from its making to `ended`."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stat = _processors()
        self._cpu: dict[int, float] = {}
        self._waited: dict[int, float] = {}
        self._memory: dict[int, int] = {}
        self._looked = 0.0

    def look(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        """Look at the processes of nodes, four times a second at most: a look at eight takes 2 ms."""
        if time.monotonic() - self._looked < 0.25:
            return
        self._looked = time.monotonic()
        for process in processes:
            self._one(process.pid)

    def _one(self, pid: int) -> None:
        place = Path(f"/proc/{pid}")
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            self._cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
            waits = [int((task / "schedstat").read_text().split()[1]) for task in (place / "task").iterdir()]
            self._waited[pid] = max(self._waited.get(pid, 0.0), max(waits) / 1e9)
            status = (place / "status").read_text()
            self._memory[pid] = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        except (OSError, ValueError, IndexError):
            return  # it has just ended

    def ended(self, servers: Sequence[subprocess.Popen[bytes]]) -> Load:
        """Return what the run took. `servers` still run, and count for `own` alone."""
        wall, (busy, total) = time.monotonic() - self._began, _processors()
        fetches = set(self._cpu)
        for process in servers:
            self._one(process.pid)
        return Load(
            busy=(busy - self._stat[0]) / max(1, total - self._stat[1]),
            own=sum(self._cpu.values()) / wall / (os.cpu_count() or 1),
            waited=max((self._waited[pid] for pid in fetches), default=0.0) / wall,
            memory=max((self._memory.get(pid, 0) for pid in fetches), default=0),
            cpu=max((self._cpu[pid] for pid in fetches), default=0.0) / wall,
        )


def _processors() -> tuple[int, int]:
    """Ticks of all processors: busy, and all."""
    fields = [int(each) for each in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)
