"""Frontiers advance together when that is faster, up to their limits, each on one thread at a time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fetcher.artifact import Digest, RemoteFile
from fetcher.engine.hashing import LEAST, Hashing, hash_threads
from fetcher.integrity import lanes
from fetcher.integrity.frontier import Frontier, Stretch
from fetcher.testing.checkpoint import random_bytes
from tests.lab.descriptors import always
from tests.lab.waiting import wait_until

MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    stretch: Stretch


class Bench:
    """Files in a directory, and hashing threads that record finished frontiers."""

    def __init__(self, directory: Path, *, threads: int, gather: int = 1 << 60) -> None:
        self.directory = directory
        self.arrived: list[str] = []
        self.errors: list[BaseException] = []
        self.hashing = Hashing[Work](threads=threads, gather=gather, done=lambda job: self.arrived.append(job.stretch.name))
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def _work(self) -> None:
        try:
            self.hashing.work()
        except (OSError, EOFError) as error:
            self.errors.append(error)

    def file(self, name: str, content: bytes, *, limit: int | None = None, flags: int = os.O_RDONLY) -> Work:
        path = self.directory / name
        path.write_bytes(content)
        remote = RemoteFile(name, len(content), (Digest("sha256", hashlib.sha256(content).hexdigest()),))
        descriptor = os.open(path, flags)
        return Work(
            Stretch(
                name,
                Frontier(remote, streams=16),
                always(descriptor),
                len(content) if limit is None else limit,
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.hashing.close()
            for thread in self._threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in self._threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_every_digest_is_right(tmp_path: Path, threads: int, count: int) -> None:
    bench = Bench(tmp_path, threads=threads)
    bench.hashing.expect(count, receiving=False)
    jobs = [bench.file(f"{number}", random_bytes(f"{number}", 1 + number * 77_777)) for number in range(count)]
    with bench.running():
        for job in jobs:
            bench.hashing.add(job)
        wait_until(lambda: len(bench.arrived) == count, "all have arrived")
    assert sorted(bench.arrived) == sorted(job.stretch.name for job in jobs)
    assert [job.stretch.frontier.mismatch() for job in jobs] == [None] * count


def test_hashing_stops_at_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=1)
    bench.hashing.expect(1, receiving=True)
    job = bench.file("a", bytes(3 * MiB), limit=MiB + 5)
    with bench.running():
        bench.hashing.add(job)
        wait_until(lambda: bench.arrived == ["a"], "it has arrived")
    assert job.stretch.frontier.position == MiB + 5


def test_hashing_waits_for_most_files_while_bytes_arrive(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=2)
    bench.hashing.expect(8, receiving=True)
    jobs = [bench.file(f"{number}", b"x" * 1000) for number in range(6)]
    with bench.running():
        for job in jobs[:5]:
            bench.hashing.add(job)
        assert not threading.Event().wait(0.1)
        assert bench.arrived == []
        bench.hashing.add(jobs[5])
        wait_until(lambda: len(bench.arrived) == 6, "six of eight are enough")


def test_hashing_starts_when_too_many_bytes_wait(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=1, gather=2 * MiB)
    bench.hashing.expect(16, receiving=True)
    with bench.running():
        bench.hashing.add(bench.file("a", bytes(2 * MiB)))
        wait_until(lambda: bench.arrived == ["a"], "it is not waited for others")


def test_all_waiting_files_are_hashed_after_the_last_byte(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=1)
    bench.hashing.expect(16, receiving=True)
    with bench.running():
        bench.hashing.add(bench.file("a", b"x"))
        bench.hashing.expect(16, receiving=False)
        wait_until(lambda: bench.arrived == ["a"], "it is not waited for others")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=1)
    job = bench.file("a", bytes(MiB), limit=MiB)
    os.truncate(tmp_path / "a", 1000)
    bench.hashing.expect(1, receiving=False)
    with bench.running():
        bench.hashing.add(job)
        wait_until(lambda: bool(bench.errors), "it is noticed")
    assert str(bench.errors[0]) == "a ends at byte 1,000, before byte 1,048,576"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, threads=1)
    job = bench.file("a", bytes(10), flags=os.O_WRONLY)
    bench.hashing.expect(1, receiving=False)
    with bench.running():
        bench.hashing.add(job)
        wait_until(lambda: bool(bench.errors), "it is noticed")
    assert isinstance(bench.errors[0], OSError)
    assert bench.errors[0].filename == "a"


def test_half_of_the_processors_hash_if_lanes_are_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fetcher.engine.hashing.available", lambda: True)
    assert [hash_threads(count) for count in (1, 2, 3, 8)] == [1, 1, 1, 4]
    monkeypatch.setattr("fetcher.engine.hashing.available", lambda: False)
    assert [hash_threads(count) for count in (1, 2, 8)] == [1, 2, 8]


def test_each_thread_gets_enough_files_to_fill_lanes() -> None:
    assert 1 < LEAST <= lanes.MOST
