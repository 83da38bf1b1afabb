"""`fetcher gc` in the Hub's cache layout: only versions that we placed and replaced; the snapshot first, the blobs later."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.store.garbage import Garbage, garbage
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.command import run_fetcher

MiB = 1024 * 1024
HOUR, DAY = 3600.0, 86400.0
SHARED = {"tokenizer.json": b"{}", "model-00001-of-00002.safetensors": random_bytes("same", 2 * MiB)}
OLD = {**SHARED, "model-00002-of-00002.safetensors": random_bytes("old", 2 * MiB)}
NEW = {**SHARED, "model-00002-of-00002.safetensors": random_bytes("new", 2 * MiB)}


class HubCache:
    """A Hub cache in which a newer version replaced the first one."""

    def __init__(self, root: Path, origin: Origin, *, by_commit: bool = False) -> None:
        """`by_commit`: the first version is fetched by its commit too."""
        self.root = root
        self.first = origin.add_repo("org/model", OLD).refs["main"]
        self.fetch()
        if by_commit:
            self.fetch(uri=f"hf://org/model@{self.first}")
        self.second = origin.add_repo("org/model", NEW).refs["main"]
        self.fetch("--refresh", "on-change")

    def fetch(self, *words: str, uri: str = "hf://org/model") -> None:
        done = run_fetcher("fetch", uri, "--layout", "hf-cache", "--cache-dir", self.root, *words)
        assert done.returncode == 0, done.stderr

    @property
    def repository(self) -> Path:
        return self.root / "models--org--model"

    @property
    def snapshots(self) -> set[str]:
        return {path.name for path in (self.repository / "snapshots").iterdir()}

    @property
    def blobs(self) -> set[Path]:
        return set((self.repository / "blobs").iterdir())

    def found(self, *, after: float) -> list[Garbage]:
        return garbage(self.root, now=time.time() + after, unused_for=DAY, gone=lambda _: False)

    def collected(self, *, after: float) -> list[str]:
        return [each.kind for each in self.found(after=after) if each.delete()]

    def blob(self, snapshot: str, path: str) -> Path:
        return (self.repository / "snapshots" / snapshot / path).resolve()


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def cache(tmp_path: Path, origin: Origin) -> HubCache:
    return HubCache(tmp_path / "hub", origin)


def test_within_the_grace_period_nothing_goes(cache: HubCache) -> None:
    assert cache.collected(after=HOUR / 2) == []
    assert cache.snapshots == {cache.first, cache.second}


def test_the_snapshot_goes_first_and_the_blobs_that_nothing_links_a_day_later(cache: HubCache) -> None:
    alone = cache.blob(cache.first, "model-00002-of-00002.safetensors")
    assert cache.collected(after=2 * HOUR) == ["snapshot"]
    assert cache.snapshots == {cache.second}
    assert alone in cache.blobs
    assert cache.collected(after=2 * HOUR) == []
    assert cache.collected(after=DAY + HOUR) == ["blob"]
    assert alone not in cache.blobs
    cache.fetch()
    assert run_fetcher("verify", "--cache-dir", cache.root).returncode == 0


def test_shared_blobs_stay(cache: HubCache) -> None:
    cache.collected(after=2 * HOUR)
    cache.collected(after=DAY + HOUR)
    assert {cache.blob(cache.second, path) for path in NEW} == cache.blobs


def test_the_record_goes_last(cache: HubCache) -> None:
    kinds = [cache.collected(after=after) for after in (2 * HOUR, DAY + HOUR, DAY + HOUR, DAY + HOUR)]
    assert kinds == [["snapshot"], ["blob"], ["record"], []]


def test_an_open_snapshot_stays(cache: HubCache) -> None:
    with cache.blob(cache.first, "model-00002-of-00002.safetensors").open():
        assert cache.collected(after=2 * HOUR) == []
    assert cache.collected(after=2 * HOUR) == ["snapshot"]


def test_a_snapshot_that_a_ref_names_stays(cache: HubCache) -> None:
    (cache.repository / "refs" / "v1").write_text(cache.first)
    assert "snapshot" not in cache.collected(after=2 * HOUR)
    assert cache.first in cache.snapshots


def test_a_snapshot_that_was_fetched_by_its_commit_stays(tmp_path: Path, origin: Origin) -> None:
    """It has no ref: somebody pinned it for production."""
    cache = HubCache(tmp_path / "hub", origin, by_commit=True)
    assert "snapshot" not in cache.collected(after=2 * HOUR)
    assert cache.first in cache.snapshots


def test_snapshots_and_blobs_of_other_tools_stay(cache: HubCache) -> None:
    foreign = cache.repository / "snapshots" / ("a" * 40)
    foreign.mkdir()
    blob = cache.repository / "blobs" / ("b" * 64)
    blob.write_bytes(b"foreign")
    os.utime(blob, (1, 1))
    for after in (2 * HOUR, 2 * DAY, 9 * DAY):
        cache.collected(after=after)
    assert (foreign.exists(), blob.exists()) == (True, True)


def test_a_blob_that_somebody_links_again_stays(cache: HubCache) -> None:
    alone = cache.blob(cache.first, "model-00002-of-00002.safetensors")
    cache.collected(after=2 * HOUR)
    (item,) = (each for each in cache.found(after=DAY + HOUR) if each.kind == "blob")
    other = cache.repository / "snapshots" / ("c" * 40)
    other.mkdir()
    (other / "model.safetensors").symlink_to(f"../../blobs/{alone.name}")
    assert not item.delete()
    assert alone.exists()


def test_a_blob_under_the_hubs_own_lock_stays(cache: HubCache) -> None:
    alone = cache.blob(cache.first, "model-00002-of-00002.safetensors")
    cache.collected(after=2 * HOUR)
    (item,) = (each for each in cache.found(after=DAY + HOUR) if each.kind == "blob")
    lock = cache.root / ".locks" / "models--org--model" / f"{alone.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not item.delete()
    assert alone.exists()
    assert item.delete()


@pytest.mark.parametrize(
    "snapshot", ["../../etc/snapshots/x", "/etc/snapshots/x", "models--org--model", "a/snapshots/..", None, 5]
)
def test_a_planted_record_deletes_nothing_elsewhere(cache: HubCache, tmp_path: Path, snapshot: object) -> None:
    (record,) = (cache.root / ".fetcher/superseded").iterdir()
    record.write_text(json.dumps({**json.loads(record.read_text()), "snapshot": snapshot}))
    before = set(tmp_path.rglob("*"))
    for after in (2 * HOUR, 2 * DAY):
        cache.collected(after=after)
    gone = before - set(tmp_path.rglob("*"))
    assert gone <= {record}
