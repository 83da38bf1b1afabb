"""Ten processes use one bounded cache at the same time, and some are killed at any moment.

A short run by default. WEIGHTLIFT_CHAOS_ROUNDS sets the number of commands: a thousand take some ten minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cache import entries, verify
from fetcher.errors import FetchError
from fetcher.events import silent
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.chaos import Chaos
from tests.lab.command import FETCHER, LOADER, run_fetcher
from tests.lab.faults import FaultFilesystem
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
PROCESSES = 10
LIMIT = 24 * MiB
SLACK = 4 * MiB
"""What manifests, journals and the granularity of blocks may add to the limit."""
MODELS = {f"org/m{number}": (3 + number) * MiB for number in range(6)}
MOVING = "org/m0"
FORK, OF = "org/fork", "org/m1"
"""A model that shares its weights with another one."""
IDLE = "2"
"""Seconds of --min-idle. A reader opens its files well within them."""

READER = """
import os, sys, time
import fetcher
from pathlib import Path
try:
    artifact = fetcher.fetch(sys.argv[1], cache_dir=sys.argv[2], retry_for=20.0, lease_wait=30.0)
except fetcher.FetchError as error:
    sys.exit(error.exit_code)
held = [path.open("rb") for path in Path(artifact.path).glob("*.safetensors")]
if not artifact.use_recorded or not held or not Path(artifact.path).exists(): sys.exit(0)
time.sleep(float(sys.argv[3]))
gone = [each.name for each in held if os.fstat(each.fileno()).st_nlink == 0]
if gone: print("disappeared", *gone, flush=True); sys.exit(99)
"""


@dataclass
class Observed:
    """What must never happen, and did."""

    largest: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)


def command_of(chaos: Chaos, root: Path, bounded: bool) -> list[str]:
    """Return one command, chosen by chance. In a root that is not bounded nothing is removed."""
    name = chaos.random.choice([*sorted(MODELS), FORK])
    source = root.parent / "source"
    uri, cache = f"hf://{name}", ["--cache-dir", str(root)]
    fetch = [*FETCHER, "fetch", uri, *cache, "--min-idle", IDLE, "--retry-for", "20", "--lease-wait", "30"]
    removing = [[*FETCHER, "prune", "--to", "12Mi", "--min-idle", IDLE, *cache], [*FETCHER, "rm", uri, *cache]]
    return chaos.random.choice(
        [
            fetch,
            fetch,
            [*FETCHER, "fetch", f"hf://{MOVING}", "--refresh", "on-change", *fetch[5:]],
            [*fetch, "--part", chaos.random.choice(["0/2", "1/2"])],
            [*FETCHER, "adopt", str(source), "--uri", str(source), *cache, "--lease-wait", "30"],
            [sys.executable, "-c", READER, uri, str(root), str(chaos.random.uniform(0.5, 3))],
            [sys.executable, "-c", READER, uri, str(root), str(chaos.random.uniform(0.5, 3))],
            *(removing if bounded else ()),
            [*FETCHER, "gc", "--unused-for", "3600", *cache],
            [*FETCHER, "pin", uri, "--for", "3s", *cache],
            [*FETCHER, "verify", *cache],
            [*FETCHER, "verify", uri, "--repair", *cache],
            [*FETCHER, "list", *cache],
            [*LOADER, "warm", str(root / ArtifactRef(uri).key)],
        ]
    )


def allocated(root: Path) -> int:
    inodes: dict[tuple[int, int], int] = {}
    for above, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                status = os.lstat(os.path.join(above, name))
                inodes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(inodes.values())


@contextmanager
def watching(root: Path) -> Iterator[Observed]:
    """Look at the cache all the time: its size, and whether every visible artifact is complete and verified."""
    observed, ended = Observed(), threading.Event()

    def look() -> None:
        before: set[str] = set()
        while not ended.is_set():
            observed.largest = max(observed.largest, allocated(root))
            found = entries(root, on_newer=lambda _: None)
            observed.removed += len(before.difference(each.key for each in found))
            before = {each.key for each in found}
            for entry in found:
                with suppress(FetchError):  # evicted meanwhile
                    inode = entry.path.stat().st_ino if entry.path.exists() else None
                    report = verify(entry, full=False, on_event=silent)
                    still = entry.path.exists() and entry.path.stat().st_ino == inode
                    if not report.ok and still:
                        observed.problems.append(f"{entry.key}: {report.bad}")
            ended.wait(0.05)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield observed
    finally:
        ended.set()
        watcher.join()


def move(origin: Origin, number: int) -> None:
    size = MODELS[MOVING]
    origin.add_repo(MOVING, {"config.json": b"{}", "model.safetensors": random_bytes(f"moving-{number}", size)})


@pytest.mark.timeout(60 + 10 * int(os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS") or 0) + 60)
@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "fuse"])
def test_ten_processes_share_a_bounded_cache(
    chaos: Chaos, monkeypatch: pytest.MonkeyPatch, kind: str, request: pytest.FixtureRequest
) -> None:
    root = place(kind, request) / "cache"
    with Origin(lfs_threshold=MiB) as origin:
        monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
        for name, size in MODELS.items():
            origin.add_repo(name, {"config.json": b"{}", "model.safetensors": random_bytes(name, size)})
        origin.add_repo(FORK, {"config.json": b'{"fork": 1}', "model.safetensors": random_bytes(OF, MODELS[OF])})
        (root.parent / "source").mkdir()
        (root.parent / "source/model.safetensors").write_bytes(random_bytes("source", 2 * MiB))
        # On FUSE, as on other filesystems that several hosts may share, an eviction waits for three minutes by design.
        bounded = kind != "fuse"
        if bounded:
            assert run_fetcher("init", root, "--max-size", str(LIMIT), "--min-idle", IDLE).returncode == 0
        root.mkdir(exist_ok=True)
        with watching(root) as observed:
            _run(origin, root, chaos, observed, bounded=bounded)
        assert observed.problems == []
        assert observed.largest <= LIMIT + SLACK or not bounded
        assert observed.removed > 0 or not bounded, "no artifact had to go: this run shows nothing"
        assert run_fetcher("verify", "--full", "--cache-dir", root).returncode == 0
        assert run_fetcher("gc", "--unused-for", "0", "--cache-dir", root).returncode == 0
        assert list((root / ".fetcher/staging").iterdir()) == []
        assert not list((root / ".fetcher").glob("ready/*"))
        for name in MODELS:
            done = run_fetcher("fetch", f"hf://{name}", "--cache-dir", root, "--min-idle", "0")
            assert done.returncode == 0, done.stderr


def place(kind: str, request: pytest.FixtureRequest) -> Path:
    """Return a directory on a filesystem of this kind."""
    if kind == "fuse":
        faulty: FaultFilesystem = request.getfixturevalue("faulty")
        return faulty.path
    make: MakeFilesystem = request.getfixturevalue("small_filesystem")
    return make("tmpfs" if kind == "tmpfs" else "ext4", size=320 * MiB).path


def _run(origin: Origin, root: Path, chaos: Chaos, observed: Observed, *, bounded: bool) -> None:
    running: dict[subprocess.Popen[str], tuple[list[str], float]] = {}
    left, processes = len(chaos.rounds(ordinarily=50 if bounded else 16)), PROCESSES if bounded else 4
    while left or running:
        while left and len(running) < processes:
            command = command_of(chaos, root, bounded)
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            killed = time.monotonic() + chaos.random.uniform(0.2, 4) if chaos.random.random() < 0.4 else float("inf")
            running[process] = command, killed
            left -= 1
            if left % 10 == 0:
                move(origin, left)
        for process, (command, killed) in list(running.items()):
            if process.poll() is None:
                if time.monotonic() > killed:
                    process.send_signal(random.Random(left).choice([signal.SIGKILL, signal.SIGTERM]))
                continue
            del running[process]
            output, errors = process.communicate()
            if process.returncode in (70, 99, -signal.SIGSEGV) or "Traceback" in errors:
                observed.problems.append(f"{command}: {process.returncode} {output} {errors}")
        time.sleep(0.02)
