"""One contender, one run: a process of its own, its wall time, and processor time and memory of it and all its children."""

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
"""Seconds between two looks at processes; one costs 0.1 ms."""
FAMILY = 5
"""Looks between two searches for children, each of which costs 0.8 ms at 24 threads: all in all 0.5 % of one processor."""


class Failed(Exception):
    """A contender ended with an error, took too long, or delivered something else."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds and bytes; memory is of all processes together, as sampled.

    `anonymous`: most anonymous memory at one moment. `resident`: the kernel's own high-water marks (VmHWM), added up, which
    count pages of mapped files too. `faults`, `major_faults`: page faults, and those of them that waited for a disk.
    What only some are asked for: `received`: bytes that the server sent. `first`: seconds to the first tensor. `beyond`: most
    resident memory besides the tensors. `residency`: how much of the files was in the page cache afterwards.
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

    def then(self, following: Cost) -> Cost:
        """This one followed by another."""
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
    """What `command` costs, from its start until the kernel has taken everything back.

    `enough` is asked every `INTERVAL`; once it says so all processes are killed, which is no failure. Raises Failed.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        redirect = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        began = time.monotonic()
        pid = os.posix_spawnp(command[0], list(command), environ, file_actions=redirect, setsid=True)
    except OSError as error:
        raise Failed(f"{command[0]} can't be started: {error.strerror}") from error
    finally:
        os.close(output)
    watch = Watch(pid, deadline=began + timeout, enough=enough)
    with watch:
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - began
    if watch.late:
        raise Failed(f"not done within {timeout:g} s")
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
    return f"exit {os.waitstatus_to_exitcode(status)}: {lines[-1][:300] if lines else 'nothing said'}"


class Watch:
    """Looks at a session of processes from a thread until the block ends.

    `ru_maxrss` would not do: it begins with what the parent had at the moment of the fork.
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
        """Bytes handed to write calls of any kind so far."""
        return sum(self._written.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, interrupted: object, *_: object) -> None:
        """Whoever interrupts the bench leaves no contender behind."""
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


def _family(pid: int) -> list[int]:
    """`pid` and all its descendants that live."""
    found, queue = [], [pid]
    while queue:
        found.append(one := queue.pop())
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                queue += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def _fields(path: str) -> dict[str, str]:
    """Lines of `NAME: VALUE`; nothing of a process that has ended."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _bytes(text: str | None) -> int:
    """`12 kB`, as /proc writes it."""
    return int(text.split()[0]) * 1024 if text else 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of several measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises StatisticsError without any."""
        return cls(statistics.median(values), min(values, default=0.0), max(values, default=0.0))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"
