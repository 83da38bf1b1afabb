"""The cost of a process and its children, with memory provided in advance."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import Failed, MiB, Watch, run
from benchmarks.memory import have_ready

HOLD = f"import time; held = b'x' * {64 * MiB}; time.sleep(0.5)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {HOLD!r}], check=True)"


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    cost = run([sys.executable, "-S", "-c", CHILD], log=tmp_path / "log", environ=os.environ, timeout=60.0)
    assert 64 * MiB < cost.anonymous < 128 * MiB
    assert cost.resident > cost.anonymous


def test_processor_time_of_a_child_counts(tmp_path: Path) -> None:
    words = ["sh", "-c", f"{sys.executable} -S -c 'sum(range(3 * 10**7))'; true"]
    assert run(words, log=tmp_path / "log", environ=os.environ, timeout=60.0).cpu > 0.05


def test_a_failure_shows_the_last_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="exit 3: no such model"):
        run(["sh", "-c", "echo first; echo no such model >&2; exit 3"], log=tmp_path / "log", environ=os.environ, timeout=60.0)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot start absent"):
        run(["absent"], log=tmp_path / "log", environ=os.environ, timeout=60.0)


def test_a_run_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="not finished within"):
        run(["sleep", "100"], log=tmp_path / "log", environ=os.environ, timeout=0.2)


def test_a_run_and_its_children_are_killed_once_enough_is_written(tmp_path: Path) -> None:
    """More than the limit can be written, because the run is sampled from outside."""
    target = tmp_path / "written"

    def enough(watch: Watch) -> bool:
        return watch.written >= MiB

    words = ["sh", "-c", f"while true; do head -c 65536 /dev/zero; done > {target}; true"]
    run(words, log=tmp_path / "log", environ=os.environ, timeout=60.0, enough=enough)
    assert target.stat().st_size >= MiB


def test_at_most_half_of_the_available_memory_is_populated(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       24000000 kB\nMemAvailable:         8192 kB\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    have_ready(1 << 50, meminfo)
    assert 0 < resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1500


def test_no_memory_is_populated_if_the_available_amount_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("")
    have_ready(1 << 50, tmp_path / "meminfo")  # exceeds the address space: a mapping would raise
