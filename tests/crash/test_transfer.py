"""Kills and stops during a transfer: finished chunks are not fetched again, and nobody publishes a mixture."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.crash.conftest import Victims, assert_verified, visible
from tests.lab.availability import require_root
from tests.lab.chaos import Chaos
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
KEY = ArtifactRef("hf://org/model").key
FILES = {
    "config.json": b"{}",
    "model-00001-of-00003.safetensors": random_bytes("one", 24 * MiB),
    "model-00002-of-00003.safetensors": random_bytes("two", 24 * MiB),
    "model-00003-of-00003.safetensors": random_bytes("three", 24 * MiB),
}


GROUP = 4711


@pytest.fixture
def shared_volume() -> Iterator[Path]:
    """A directory that a group shares. Those of pytest are accessible to one user only."""
    require_root("become two other users")
    with TemporaryDirectory() as directory:
        root = Path(directory)
        os.chown(root, 0, GROUP)
        root.chmod(0o2775)
        yield root


def served(origin: Origin) -> int:
    """Requested bytes of weights."""
    return sum(
        len(request.byte_range) if request.byte_range else CHUNK_SIZE for request in origin.requests if request.origin == "cdn"
    )


def received(root: Path) -> int:
    """Bytes allocated to staged weights."""
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*.safetensors"))


def begun(root: Path) -> bool:
    """Whether a journal records written data."""
    return any(b'"part"' in path.read_bytes() or b'"chunk"' in path.read_bytes() for path in root.rglob("journal.*"))


@pytest.mark.timeout(0 if os.environ.get("WEIGHTLIFT_CHAOS_ROUNDS") else 120)
def test_a_fetch_killed_at_random_moments_always_completes(
    origin: Origin, victims: Victims, chaos: Chaos, tmp_path: Path
) -> None:
    """About forty kills: runs are killed after a random time until one completes; then a new root begins."""
    origin.add_repo("org/model", FILES)
    origin.throttle(total=120 * MiB)
    root, number = tmp_path / "0", 0
    for _ in chaos.rounds(ordinarily=40):
        victim = victims.start(cache_dir=root, max_concurrency=4)
        try:
            victim.wait(timeout=chaos.random.uniform(0.2, 1.1))
        except subprocess.TimeoutExpired:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        else:
            assert victim.returncode == 0
        if (root / KEY).exists():
            assert visible(root / KEY) == FILES
            assert_verified(root / KEY)
            shutil.rmtree(root)
            number += 1
            root = tmp_path / str(number)
    origin.throttle()
    assert victims.run(cache_dir=root)[0] == 0
    assert visible(root / KEY) == FILES
    assert_verified(root / KEY)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_second_fetch_resumes_where_the_first_was_killed(
    origin: Origin, victims: Victims, tmp_path: Path, number: signal.Signals
) -> None:
    origin.add_repo("org/model", FILES)
    origin.throttle(total=30 * MiB)
    victim = victims.start(cache_dir=tmp_path, max_concurrency=3)
    wait_until(lambda: sum(path.read_bytes().count(b'"chunk"') for path in tmp_path.rglob("journal.*")) >= 2, "two chunks")
    victim.send_signal(number)
    victim.wait()
    (journal,) = tmp_path.rglob("journal.*")
    finished = journal.read_bytes().count(b'"chunk"')
    origin.throttle()
    origin.clear_requests()

    assert victims.run(cache_dir=tmp_path)[0] == 0

    assert visible(tmp_path / KEY) == FILES
    assert served(origin) <= sum(map(len, FILES.values())) - (finished - 1) * CHUNK_SIZE
    assert not list((tmp_path / ".fetcher" / "staging").iterdir())


@pytest.mark.parametrize("count", [2, 10])
def test_several_processes_download_the_artifact_once(origin: Origin, victims: Victims, tmp_path: Path, count: int) -> None:
    origin.add_repo("org/model", FILES)
    started = [victims.start(cache_dir=tmp_path, max_concurrency=2) for _ in range(count)]
    assert [victim.wait(timeout=60) for victim in started] == [0] * count
    assert visible(tmp_path / KEY) == FILES
    assert served(origin) <= sum(map(len, FILES.values())) + CHUNK_SIZE


def test_a_stopped_owner_that_resumes_later_cannot_change_the_published_artifact(
    origin: Origin, victims: Victims, tmp_path: Path
) -> None:
    origin.add_repo("org/model", FILES)
    origin.throttle(total=20 * MiB)
    stopped = victims.start(cache_dir=tmp_path, max_concurrency=3, lease_stale=2.0)
    wait_until(lambda: begun(tmp_path), "a chunk that was begun")
    stopped.send_signal(signal.SIGSTOP)
    origin.throttle()

    assert victims.run(cache_dir=tmp_path, lease_stale=2.0)[0] == 0
    assert_verified(tmp_path / KEY)
    stopped.send_signal(signal.SIGCONT)

    assert stopped.wait(timeout=30) == 75
    assert "LeaseLost" in (stopped.stderr.read() if stopped.stderr else "")
    assert visible(tmp_path / KEY) == FILES
    assert_verified(tmp_path / KEY)


def test_the_next_container_resumes_immediately_after_a_kill(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    """It had its own PID namespace, so nobody can look for its process."""
    require_root("make a PID namespace")
    origin.add_repo("org/model", FILES)
    container = ("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; true', "sh")
    victims.run(within=container, cache_dir=tmp_path, kill_on="FileVerified")
    assert any(tmp_path.rglob("lease.*"))
    code, _, stderr = victims.run(within=container, cache_dir=tmp_path, lease_wait=1.0)
    assert code == 0, stderr
    assert_verified(tmp_path / KEY)


def test_a_lease_wait_is_bounded_and_names_the_holder(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    origin.add_repo("org/model", FILES)
    origin.throttle(total=5 * MiB)
    holder = victims.start(cache_dir=tmp_path)
    wait_until(lambda: begun(tmp_path) or any(tmp_path.rglob("lease.*")), "a lease")
    code, _, stderr = victims.run(cache_dir=tmp_path, lease_wait=0.5)
    assert code == 75
    assert stderr.startswith("LeaseTimeout: ")
    assert str(holder.pid) in stderr


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["umask 022", "umask 077"])
def test_the_lease_of_another_user_of_the_group_is_taken_over(
    origin: Origin, victims: Victims, shared_volume: Path, umask: int
) -> None:
    """Volumes with an fsGroup: setgid and group-writable, while every pod runs as a different user."""
    origin.add_repo("org/model", FILES)
    origin.throttle(total=30 * MiB)
    first = victims.start(cache_dir=shared_volume, user=10001, group=GROUP, umask=umask)
    wait_until(lambda: begun(shared_volume) or first.poll() is not None, "a chunk that was begun")
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    staged = next(shared_volume.rglob("*.safetensors")).stat()
    assert (staged.st_uid, staged.st_gid, stat.S_IMODE(staged.st_mode)) == (10001, GROUP, 0o664)
    origin.throttle()
    origin.clear_requests()

    code, _, stderr = victims.run(cache_dir=shared_volume, user=10002, group=GROUP, umask=umask)

    assert code == 0, stderr
    assert visible(shared_volume / KEY) == FILES
    assert served(origin) < sum(map(len, FILES.values()))
    for path in (shared_volume / KEY, *(shared_volume / KEY).rglob("*")):
        wanted = 0o2775 if path.is_dir() else 0o664
        assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (GROUP, wanted), path


def test_other_users_can_read_whatever_the_umask(origin: Origin, victims: Victims, tmp_path: Path) -> None:
    origin.add_repo("org/model", {"config.json": b"{}", "nested/model.safetensors": b"weights"})
    tmp_path.chmod(0o700)
    assert victims.run(cache_dir=tmp_path / "cache", umask=0o077)[0] == 0
    for path in (tmp_path / "cache" / KEY, *(tmp_path / "cache" / KEY).rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


@pytest.mark.parametrize("limit", [64 * MiB, 256 * MiB])
def test_the_memory_bound_holds_at_64_connections(origin: Origin, victims: Victims, tmp_path: Path, limit: int) -> None:
    """Resident anonymous memory stays within the limit and 64 MiB for interpreter and TLS, while ranges of several shards
    arrive out of order."""
    content = random_bytes("large", 128 * MiB)
    shards = {f"model-{number}.safetensors": b"%d" % number + content for number in range(4)}
    origin.add_repo("org/model", shards)
    peak = 0
    victim = victims.start(cache_dir=tmp_path, max_concurrency=64, memory_limit=limit)
    while victim.poll() is None:
        peak = max(peak, anonymous(victim.pid))
        time.sleep(0.02)
    assert victim.returncode == 0
    assert 0 < peak <= limit + 64 * MiB


def anonymous(pid: int) -> int:
    """Resident anonymous bytes of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
