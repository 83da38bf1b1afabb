"""Probe the disk: is it idle, how fast is it, and is its speed the same before and after a measurement?

Virtual disks are throttled after bursts, so a measurement counts only between two probes that agree.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measuring import Failed

IDLE = 2.0
"""Seconds with almost no writes that count as idle: longer than the pauses of writeback within a burst."""
QUIET = 4 * 2048
"""Maximum sectors of 512 bytes, 4 MiB, written during `IDLE`: logs and a journal's commits."""
PATIENCE = 15.0
"""Maximum seconds to wait for an idle disk. Other tenants may never be quiet; the probes show whether it matters."""
AGREE = 0.15
"""Maximum difference of two probes, as a share of the faster one."""


def wait_until_idle(directory: Path) -> None:
    """Return after the filesystem's device was idle, or after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        before = _sectors_written(directory)
        time.sleep(IDLE)
        if _sectors_written(directory) - before <= QUIET:
            return


def fio(*words: str) -> dict[str, Any]:
    """Run fio and return the result of its one job. Raises Failed."""
    program = shutil.which("fio")
    if program is None:
        raise Failed("fio is missing; on Debian: apt-get install fio")
    ended = subprocess.run([program, *words, "--output-format=json"], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Failed(f"fio: {ended.stderr.strip()[-300:]}")
    job: dict[str, Any] = json.loads(ended.stdout)["jobs"][0]
    return job


def probe(directory: Path, *, size: int) -> float:
    """Return the rate in bytes a second at which fio writes `size` bytes with direct I/O. Raises Failed."""
    how = ["--rw=write", "--bs=4M", "--direct=1", "--ioengine=libaio", "--iodepth=4", "--unlink=1", "--end_fsync=1"]
    return float(fio("--name=probe", f"--directory={directory}", f"--size={size}", *how)["write"]["bw_bytes"])


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Create a directory below `parent`, and remove it with its content afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="weightlift-bench-", dir=parent) as name:
        yield Path(name)


def agree(before: float, after: float) -> bool:
    return abs(before - after) <= AGREE * max(before, after)


def _sectors_written(directory: Path) -> int:
    """Return the sectors written to the device of `directory`; 0 if it has no device, as on an overlay."""
    device = os.stat(directory).st_dev
    statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(statistics.read_text().split()[6]) if statistics.exists() else 0
