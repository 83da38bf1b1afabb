"""One contender, one run: a process of its own, its wall time, and the CPU time of it and all its children."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

GB = 1e9


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds."""

    wall: float
    cpu: float


def run(command: Sequence[str], *, log: Path) -> Cost:
    """What `command` costs, from its start until the kernel has taken everything back. Raises RuntimeError if it fails."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FETCHER_", "HF_"))}
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        began = time.monotonic()
        redirect = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        pid = os.posix_spawnp(command[0], list(command), environ, file_actions=redirect)
        _, status, usage = os.wait4(pid, 0)
        wall = time.monotonic() - began
    finally:
        os.close(output)
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {log.read_text()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of several measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def machine() -> str:
    """The processor, how many of it, memory and kernel."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    flags = Path("/proc/cpuinfo").read_text()
    sha = "SHA-NI" if " sha_ni" in flags else "no SHA-NI"
    return f"{os.cpu_count()} x {model} ({sha}), {gigabytes:.0f} GB, Linux {platform.release()}"


def versions() -> str:
    """Of everything that takes part."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "xxhash", "hf_transfer"))
    return f"Python {platform.python_version()}, {packages}, {_first_line('nginx', '-v')}, {_first_line('curl', '--version')}"


def commit() -> str:
    """The commit measured, and whether the tree differed from it."""
    described = _first_line("git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*")
    return described or "no repository"


def _first_line(*command: str) -> str:
    executable = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        return f"no {command[0]}"
    ended = subprocess.run([executable, *command[1:]], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        return ""
    lines = (ended.stdout + ended.stderr).splitlines()
    return " ".join(lines[0].split()[:3]) if lines else ""
