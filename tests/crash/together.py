"""Runs a mixture of commands at the same time, kills some of them at any moment, and looks at the cache all the while."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fetcher.artifact import ArtifactRef
from fetcher.cache import entries, verify
from fetcher.errors import FetchError
from fetcher.events import silent
from fetcher.testing.origin import Origin
from tests.crash.mixture import DAMAGED, Mixture, damage, move
from tests.lab.chaos import Chaos

PROCESSES = 10
_BUG, _DISAPPEARED = 70, 99
"""Exit codes: of an unexpected exception, and of a reader whose artifact is gone."""


@dataclass
class Observed:
    """What must never happen, and did. `largest`: the most bytes that the cache occupied."""

    largest: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)


def occupied(root: Path) -> int:
    """Return the bytes of all blocks of files below `root`. Hard links count once, and clones as often as they exist."""
    inodes: dict[tuple[int, int], int] = {}
    for above, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(above, name))
                inodes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(inodes.values())


@contextmanager
def watching(root: Path, measure: Callable[[], int]) -> Iterator[Observed]:
    """Look at the cache all the time: its size by `measure`, and whether every visible artifact is complete and verified."""
    observed, ended = Observed(), threading.Event()
    damaged = ArtifactRef(f"hf://{DAMAGED}").key

    def look() -> None:
        before: set[str] = set()
        while not ended.is_set():
            observed.largest = max(observed.largest, measure())
            found = entries(root, on_newer=lambda _: None)
            observed.removed += len(before.difference(each.key for each in found))
            before = {each.key for each in found}
            for entry in found:
                with suppress(FetchError, OSError):  # evicted meanwhile
                    inode = entry.path.stat().st_ino
                    report = verify(entry, full=False, on_event=silent)
                    if not report.ok and entry.key != damaged and entry.path.stat().st_ino == inode:
                        observed.problems.append(f"{entry.key}: {report.bad}")
            ended.wait(0.05)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield observed
    finally:
        ended.set()
        watcher.join()


def run_together(mixture: Mixture, origin: Origin, chaos: Chaos, observed: Observed, *, rounds: int) -> None:
    """Run `rounds` choices of `mixture`, PROCESSES at a time. Four of ten processes are killed. Return after the last one."""
    running: dict[subprocess.Popen[str], tuple[list[str], float]] = {}
    left = rounds
    while left or running:
        while left and len(running) < PROCESSES:
            left -= 1
            for command in mixture.choose(chaos):
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                killed = time.monotonic() + chaos.random.uniform(0.2, 4) if chaos.random.random() < 0.4 else float("inf")
                running[process] = command, killed
            if left % 10 == 0:
                move(origin, left)
            if left % 7 == 0:
                damage(mixture.root)
        for process, (command, killed) in list(running.items()):
            if process.poll() is None:
                if time.monotonic() > killed:
                    process.send_signal(chaos.random.choice([signal.SIGKILL, signal.SIGTERM]))
                continue
            del running[process]
            output, errors = process.communicate()
            if process.returncode in (_BUG, _DISAPPEARED, -signal.SIGSEGV) or "Traceback" in errors:
                observed.problems.append(f"{command}: {process.returncode} {output} {errors}")
        time.sleep(0.02)
