"""Which threads of a fetch use the processors, on one processor and on more: what would bound a larger machine.

::

    python -m benchmarks.threads                        # 16 files of 64 MiB, 5 rounds, on 1 and 2 processors
    python -m benchmarks.threads --size 128 --rounds 9

Each figure is a slope: of these files and of a quarter of their sizes, so that starting and ending are not in it. nginx is
pinned to the last processor. A client with one processor has the first one, so the two do not meet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.disk import workspace
from benchmarks.downloading import CLIENTS
from benchmarks.fetching.server import Server, serving
from benchmarks.installation import CHECKOUT
from benchmarks.memory import have_ready
from benchmarks.publishing import MiB, Shape, publish

GB = 1e9
LINK = 12.5
"""GB/s of 100 Gbit/s."""
KINDS = ("loop", "write", "hash")
"""The threads that bytes go through: events and requests; receiving, writing, and hashing in order; hashing behind it."""


Seconds = Mapping[str, float]
"""Processor seconds by kind of thread, and seconds by the clock as `wall`."""


@dataclass(frozen=True, slots=True)
class Case:
    processors: int
    verified: bool

    def __str__(self) -> str:
        return f"{'verified' if self.verified else 'unverified'} on {self.processors}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, and the rate at which one thread of a kind would be busy all the time."""
    parser = argparse.ArgumentParser(description="processor time by kind of thread")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="MiB of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args(argv)
    cases = [Case(count, verified) for count in sorted({1, os.cpu_count() or 1}) for verified in (False, True)]
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else CHECKOUT / ".bench"  # noqa: S108 - memory, not a place for secrets
    with workspace(base) as place, ExitStack() as stack:
        servers = []
        for size in (given.size * MiB // 4, given.size * MiB):
            repository = publish(place / f"published-{size}", Shape(given.files, size))
            servers.append(stack.enter_context(serving(repository, place / f"server-{size}")))
        rounds = [
            {case: [_fetched(server, place, case, given.connections) for server in servers] for case in cases}
            for _ in range(given.rounds)
        ]
    gigabytes = given.files * given.size * MiB * 3 / 4 / GB
    for case in cases:
        _print(case, [each[case] for each in rounds], gigabytes)
    return 0


def _fetched(server: Server, place: Path, case: Case, connections: int) -> Seconds:
    repository, destination, output = server.repository, place / "fetched", place / "seconds"
    shutil.rmtree(destination, ignore_errors=True)
    have_ready(repository.shape.total)
    repository.warm()
    source = repository.name if case.verified else repository.undigested
    words = ["fetch", f"hf://{source}", f"--dest={destination}", f"--max-concurrency={connections}", "--progress=none"]
    began = time.monotonic()
    subprocess.run(
        [
            "taskset",
            "--cpu-list",
            f"0-{case.processors - 1}",
            sys.executable,
            str(CLIENTS / "by_thread.py"),
            str(output),
            *words,
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(place), "HF_ENDPOINT": server.hub, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=600,
    )
    wall = time.monotonic() - began
    return {"wall": wall, **{kind: each["ran"] for kind, each in json.loads(output.read_text()).items()}}


def _print(case: Case, rounds: Sequence[Sequence[Seconds]], gigabytes: float) -> None:
    print(f"{case}:")
    for kind in ("wall", *KINDS, *sorted({kind for pair in rounds for one in pair for kind in one} - {"wall", *KINDS})):
        slopes = sorted((large.get(kind, 0.0) - small.get(kind, 0.0)) / gigabytes for small, large in rounds)
        median = statistics.median(slopes)
        line = f"  {kind:8} {median:6.3f} s/GB ({slopes[0]:.3f} to {slopes[-1]:.3f})"
        if kind in KINDS and median > 0:
            line += f"  one thread carries {1 / median:.1f} GB/s; 100 Gbit/s take {LINK * median:.1f}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
