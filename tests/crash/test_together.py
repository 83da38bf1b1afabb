"""Ten processes use one bounded cache at the same time, on four filesystems, and some are killed at any moment.

A short run by default. WEIGHTLIFT_CHAOS_ROUNDS sets the number of commands: a thousand take some ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fetcher.testing.origin import Origin
from tests.crash.mixture import DAMAGED, IDLE, LIMIT, MODELS, Mixture, publish
from tests.crash.together import occupied, run_together, watching
from tests.lab.chaos import Chaos
from tests.lab.command import run_command, run_fetcher
from tests.lab.faults import FaultFilesystem
from tests.lab.filesystems import SMALLEST
from tests.lab.fixtures import MakeFilesystem

MiB = 1024 * 1024
SLACK = 4 * MiB
"""What manifests, journals and the granularity of blocks may add to the limit."""
ROUNDS = 8
TRIES, RETRYABLE = 5, 75
"""On a slow machine a fetch can lose its lease, because the patience of the lab is short. It says so, and is run again."""
KINDS = ("ext4", "xfs", "tmpfs", "fuse")
LONG = int(os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS") or 0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def volume(kind: str, small_filesystem: MakeFilesystem, request: pytest.FixtureRequest) -> Path:
    """An empty directory on a filesystem of its own."""
    if kind == "fuse":
        faulty: FaultFilesystem = request.getfixturevalue("faulty")
        return faulty.path
    return small_filesystem(kind, size=max(SMALLEST[kind], 200 * MiB)).path  # type: ignore[arg-type,index]


def measuring(kind: str, volume: Path, root: Path) -> Callable[[], int]:
    """Return what tells the bytes that `root` occupies. On xfs clones share blocks, which only the whole filesystem shows."""
    if kind != "xfs":
        return lambda: occupied(root)
    before = os.statvfs(volume).f_bfree

    def used() -> int:
        now = os.statvfs(volume)
        return (before - now.f_bfree) * now.f_frsize

    return used


@pytest.mark.timeout(120 + 10 * LONG)
def test_ten_processes_share_a_bounded_cache(
    kind: str, volume: Path, tmp_path: Path, chaos: Chaos, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = volume / "cache"
    mixture = Mixture(root, tmp_path, network=kind == "fuse")
    rounds = len(chaos.rounds(ordinarily=ROUNDS))
    with Origin(lfs_threshold=MiB) as origin:
        monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
        publish(origin, tmp_path)
        root.mkdir()
        assert run_fetcher("init", root, "--max-size", str(LIMIT), "--min-idle", str(IDLE)).returncode == 0
        with watching(root, measuring(kind, volume, root)) as observed:
            run_together(mixture, origin, chaos, observed, rounds=rounds)
            fetch_all(mixture)
        assert observed.problems == []
        assert observed.largest <= LIMIT + SLACK
        assert observed.removed > 0, "no artifact had to go: this run shows nothing"
        assert_clean(mixture)


def fetch_all(mixture: Mixture) -> None:
    """Fetch every model. Together they need more than the limit, so some must go."""
    for name in MODELS:
        fetch = ["fetch", f"hf://{name}", "--cache-dir", str(mixture.root), "--min-idle", "0"]
        tries = (run_command(mixture.fetcher, *fetch) for _ in range(TRIES))
        done = next(each for number, each in enumerate(tries, 1) if each.returncode != RETRYABLE or number == TRIES)
        assert done.returncode == 0, done.stderr


def assert_clean(mixture: Mixture) -> None:
    """Every artifact can be repaired and is verified, and nothing is left besides artifacts."""
    cache = ("--cache-dir", str(mixture.root))
    run_command(mixture.fetcher, "verify", f"hf://{DAMAGED}", "--repair", *cache)  # it may have been evicted
    for command in (["verify", "--full"], ["gc", "--unused-for", "0"]):
        done = run_command(mixture.fetcher, *command, *cache)
        assert done.returncode == 0, done.stderr
    assert list((mixture.root / ".fetcher/staging").iterdir()) == []
    assert not list((mixture.root / ".fetcher").glob("ready/*"))
