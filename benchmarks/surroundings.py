"""Where a figure was taken: machine, versions, commit. A figure without them can't be compared with anything."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from benchmarks.measuring import GB

FLAGS = {"sha_ni": "SHA-NI", "avx2": "AVX2", "avx512f": "AVX-512"}
"""Names in /proc/cpuinfo that decide how fast SHA-256 is, and what they are called."""
OURS = ("weightlift", "aiohttp", "uvloop", "xxhash", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a reader of a report needs to judge and to repeat it. `conditions`: what held for every run. `skipped`: scenarios
    that were not played, with the reason."""

    command: str
    machine: str
    versions: dict[str, str]
    commit: str
    rounds: str
    scale: float
    date: str
    conditions: str
    skipped: dict[str, str]

    @classmethod
    def here(cls, *, versions: dict[str, str], rounds: str, scale: float, conditions: str) -> Setting:
        """This machine, commit, command line and day."""
        return cls(
            command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            machine=machine(),
            versions=versions,
            commit=commit(),
            rounds=rounds,
            scale=scale,
            date=datetime.now(UTC).date().isoformat(),
            conditions=conditions,
            skipped={},
        )


def machine() -> str:
    """Processors, their flags, memory, kernel and congestion control."""
    present = processor_flags()
    flags = ", ".join(f"{'' if name in present else 'no '}{label}" for name, label in FLAGS.items())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    model = _processor().get("model name", platform.machine())
    return f"{os.cpu_count()} x {model} ({flags}), {memory:.0f} GB, Linux {platform.release()}, TCP {control}"


def processor_flags() -> frozenset[str]:
    """As the kernel names them: `sha_ni`, `avx2`."""
    facts = _processor()
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


@cache
def _processor() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def versions(command: str, peers: Path, *, theirs: Sequence[str], tools: Sequence[str]) -> dict[str, str]:
    """Of everything that takes part: packages beside `command`, our own under test, `theirs`, and programs."""
    ours = _installed(Path(command).with_name("python"), OURS)
    return {"Python": platform.python_version()} | ours | _installed(peers, theirs) | {name: _version(name) for name in tools}


def commit() -> str:
    """The commit measured, and whether the tree differed from it."""
    return _said("git", "describe", "--always", "--abbrev=10", "--dirty", "--exclude=*") or "no repository"


def _installed(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in an environment, those that are there."""
    script = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = (line.split() for line in _said(str(python), "-c", script).splitlines())
    return {name: text for name, text in lines if name in names}


def _version(program: str) -> str:
    """The first number in what it says of itself, if only to complain about the flag."""
    flag = {"nginx": "-v", "openssl": "version"}.get(program, "--version")
    found = re.search(r"\d+(\.\d+)+\w*", _said(program, flag, failing=True))
    return found[0] if found else "missing"


def _said(program: str, *words: str, failing: bool = False) -> str:
    """On either stream; nothing where there is no such program or, unless `failing`, where it fails."""
    executable = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        return ""
    ended = subprocess.run([executable, *words], capture_output=True, text=True, check=False)
    return (ended.stdout + ended.stderr).strip() if failing or ended.returncode == 0 else ""
