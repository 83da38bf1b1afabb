"""Measure one run of a contender as a process: wall time, and processor time and memory with all its children."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

GB = 1e9
MiB = 1024 * 1024

INTERVAL = 0.05
"""Seconds between two samples of processes; a sample costs 0.1 ms."""
FAMILY = 5
"""Samples between two searches for children. A search costs 0.8 ms at 24 threads; the total is 0.5 % of one processor."""


class Failed(Exception):
    """A contender ended with an error, took too long, or gave a wrong result."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a run in seconds and bytes; memory is the sampled sum over all processes.

    `anonymous`: maximum anonymous memory. `resident`: sum of the kernel's high-water marks (VmHWM), which include pages of
    mapped files. `faults`, `major_faults`: all page faults, and those that waited for a disk. Only for some scenarios:
    `received`: bytes that the server sent. `first`: seconds to the first tensor. `beyond`: maximum resident memory in addition
    to the tensors. `residency`: fraction of the files in the page cache afterwards. `server`: processor seconds of the server.
    `copied`: bytes of the copy.
    """

    wall: float
    cpu: float
    anonymous: int = 0
    resident: int = 0
    faults: int = 0
    major_faults: int = 0
    received: int | None = None
    first: float | None = None
    beyond: int | None = None
    residency: float | None = None
    server: float | None = None
    copied: int | None = None

    def then(self, following: Cost) -> Cost:
        """Return the cost of this run followed by another."""
        return Cost(
            self.wall + following.wall,
            self.cpu + following.cpu,
            max(self.anonymous, following.anonymous),
            max(self.resident, following.resident),
            self.faults + following.faults,
            self.major_faults + following.major_faults,
        )


def run(
    command: Sequence[str],
    *,
    log: Path,
    environ: Mapping[str, str],
    timeout: float,
    enough: Callable[[Watch], bool] | None = None,
) -> Cost:
    """Run `command` and return its cost, from its start until the kernel has freed its resources.

    `enough` is called every `INTERVAL`. When it returns True, all processes are killed, without failure. Raises Failed.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        began = time.monotonic()
        pid = os.posix_spawnp(command[0], list(command), environ, file_actions=redirect, setsid=True)
    except OSError as error:
        raise Failed(f"cannot start {command[0]}: {error.strerror}") from error
    finally:
        os.close(output)
    watch = Watch(pid, deadline=began + timeout, enough=enough)
    with watch:
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - began
    if watch.late:
        raise Failed(f"not finished within {timeout:g} s")
    if status != 0 and not watch.killed:
        raise Failed(_last_words(log, status))
    return Cost(
        wall,
        usage.ru_utime + usage.ru_stime,
        watch.anonymous,
        watch.resident,
        faults=usage.ru_minflt + usage.ru_majflt,
        major_faults=usage.ru_majflt,
    )


def _last_words(log: Path, status: int) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"exit {os.waitstatus_to_exitcode(status)}: {lines[-1][:300] if lines else 'no output'}"


class Watch:
    """Samples a session of processes from a thread until the block ends.

    `ru_maxrss` is not enough: it starts with the parent's memory at the fork.
    """

    def __init__(self, pid: int, *, deadline: float, enough: Callable[[Watch], bool] | None) -> None:
        self.anonymous = 0
        self.killed = False
        self.late = False
        self._pid = pid
        self._deadline = deadline
        self._enough = enough
        self._looks = 0
        self._pids = [pid]
        self._marks: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def resident(self) -> int:
        return sum(self._marks.values())

    @property
    def written(self) -> int:
        """Bytes passed to write calls so far."""
        return sum(self._written.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, interrupted: object, *_: object) -> None:
        """Kill the contender if the bench is interrupted."""
        if interrupted is not None:
            self._kill()
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self._look()
            if time.monotonic() > self._deadline:
                self.late = True
                self._kill()
            if self._enough is not None and not self.killed and self._enough(self):
                self._kill()
            self._ended.wait(INTERVAL)

    def _kill(self) -> None:
        self.killed = True
        if not self._ended.is_set():
            os.killpg(self._pid, signal.SIGKILL)

    def _look(self) -> None:
        if self._looks % FAMILY == 0:
            self._pids = _family(self._pid)
        self._looks += 1
        anonymous = 0
        for pid in self._pids:
            fields = _fields(f"/proc/{pid}/status")
            anonymous += _bytes(fields.get("RssAnon"))
            self._marks[pid] = max(self._marks.get(pid, 0), _bytes(fields.get("VmHWM")))
            if self._enough is not None:
                self._written[pid] = int(_fields(f"/proc/{pid}/io").get("wchar", self._written.get(pid, 0)))
        self.anonymous = max(self.anonymous, anonymous)


def processor_seconds(pid: int) -> float:
    """Return the seconds that all threads of `pid` and of its living descendants have run. The kernel counts nanoseconds."""
    ran = 0
    for one in _family(pid):
        for task in Path(f"/proc/{one}/task").iterdir():
            ran += int((task / "schedstat").read_text().split()[0])
    return ran / 1e9


def _family(pid: int) -> list[int]:
    """Return `pid` and all its living descendants."""
    pids, queue = [], [pid]
    while queue:
        pids.append(one := queue.pop())
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                queue += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return pids


def _fields(path: str) -> dict[str, str]:
    """Return the `NAME: VALUE` lines as a dictionary, empty if the process has ended."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _bytes(text: str | None) -> int:
    """Return the bytes of a text such as `12 kB`, as in /proc."""
    return int(text.split()[0]) * 1024 if text else 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum of several measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of `values`. Raises StatisticsError if there are none."""
        return cls(statistics.median(values), min(values, default=0.0), max(values, default=0.0))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"
