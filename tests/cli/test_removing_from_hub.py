"""`fetcher rm` in the Hub's cache layout: what we placed goes, what others need stays, and the Hub's client reads the rest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from fetcher.cache import remove
from fetcher.errors import LocalIOError
from fetcher.store.garbage import garbage
from fetcher.store.lease import acquire
from fetcher.store.superseded import Superseded
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.command import run_fetcher

MiB = 1024 * 1024
SHARED, ALONE = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
FILES = {
    "config.json": b"{}",
    SHARED: random_bytes("same", 2 * MiB),
    ALONE: random_bytes("first", 2 * MiB),
}
OTHER = FILES | {ALONE: random_bytes("second", 2 * MiB)}


class HubCache:
    """A cache in the Hub's layout, with one model fetched into it."""

    def __init__(self, root: Path, origin: Origin) -> None:
        self.root, self.origin = root, origin
        self.commit = origin.add_repo("org/model", FILES).refs["main"]
        self.key = self.fetch()

    def fetch(self, uri: str = "hf://org/model", *words: str) -> str:
        """Fetch, and return the cache key."""
        words = ("--layout", "hf-cache", "--cache-dir", str(self.root), *words)
        done = run_fetcher("fetch", uri, *words, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["cache_key"])

    def rm(self, *words: str, code: int = 0) -> str:
        done = run_fetcher("rm", *words, "--cache-dir", self.root)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    @property
    def repository(self) -> Path:
        return self.root / "models--org--model"

    def blob(self, path: str) -> Path:
        return (self.repository / "snapshots" / self.commit / path).resolve()

    def files(self) -> list[str]:
        """Everything in the cache but locks and our private directory."""
        paths = (path.relative_to(self.root) for path in self.root.rglob("*"))
        return sorted(path.as_posix() for path in paths if path.parts[0] not in (".locks", ".fetcher"))

    def scanned(self) -> dict[str, set[str]]:
        """The repositories and commits that the Hub's client finds. It must not warn."""
        report = huggingface_hub.scan_cache_dir(self.root)
        damaged = [str(each) for each in report.warnings if ".fetcher" not in str(each)]
        assert damaged == []
        return {each.repo_id: {revision.commit_hash for revision in each.revisions} for each in report.repos}


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def cache(tmp_path: Path, origin: Origin) -> HubCache:
    return HubCache(tmp_path / "hub", origin)


class TestAlone:
    @pytest.mark.parametrize("by", ["key", "URI"])
    def test_nothing_of_the_artifact_is_left(self, cache: HubCache, by: str) -> None:
        assert cache.scanned() == {"org/model": {cache.commit}}
        printed = cache.rm(cache.key if by == "key" else "hf://org/model")
        assert printed.splitlines()[-1] == "1 removed, 4.0 MiB"
        assert cache.files() == []
        assert cache.scanned() == {}
        private = cache.root / ".fetcher"
        assert [path for name in ("manifests", "superseded", "usage", "staging") for path in (private / name).glob("*")] == []

    def test_a_dry_run_only_shows_it(self, cache: HubCache) -> None:
        before = cache.files()
        assert cache.key in cache.rm(cache.key, "--dry-run")
        assert cache.files() == before

    def test_it_can_be_fetched_again(self, cache: HubCache) -> None:
        cache.rm(cache.key)
        cache.fetch()
        assert cache.scanned() == {"org/model": {cache.commit}}
        assert run_fetcher("verify", "--cache-dir", cache.root).returncode == 0

    def test_a_blob_that_the_hubs_client_locks_is_left_to_gc(self, cache: HubCache) -> None:
        blob = cache.blob(ALONE)
        lock = cache.root / ".locks" / cache.repository.name / f"{blob.name}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            cache.rm(cache.key)
        assert [path.name for path in (cache.repository / "blobs").iterdir()] == [blob.name]
        assert cache.scanned() == {"org/model": set()}
        later = garbage(cache.root, now=time.time() + 25 * 3600, unused_for=1e9, gone=lambda _: False)
        assert [each.delete() for each in later if each.kind == "blob"] == [True]
        assert not blob.exists()


def test_gc_completes_a_removal_that_was_interrupted(cache: HubCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Superseded) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(Superseded, "remove_snapshot", fail)
        with pytest.raises(LocalIOError, match="remove the artifact from the Hub's cache"):
            remove(cache.root, [cache.key], force=False, dry_run=False)
    assert cache.scanned() == {"org/model": {cache.commit}}
    for hours in (2, 25, 25):
        later = garbage(cache.root, now=time.time() + hours * 3600, unused_for=1e9, gone=lambda _: False)
        for each in later:
            each.delete()
    assert cache.scanned() == {"org/model": set()}
    assert list((cache.repository / "blobs").iterdir()) == []
    assert list((cache.root / ".fetcher/staging").iterdir()) == []


class TestRefusal:
    """An artifact that somebody needs stays as it is."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, cache: HubCache) -> Iterator[None]:
        before = cache.files()
        yield
        assert set(before) <= set(cache.files())
        assert cache.scanned()["org/model"] >= {cache.commit}

    def test_a_pinned_one(self, cache: HubCache) -> None:
        assert run_fetcher("pin", cache.key, "--cache-dir", cache.root).returncode == 0
        assert cache.rm(cache.key, code=73).startswith("Pinned: ")

    def test_a_held_one(self, cache: HubCache) -> None:
        assert run_fetcher("hold", cache.key, "--pod-uid", "pod-1", "--cache-dir", cache.root).returncode == 0
        assert "held by a pod" in cache.rm(cache.key, code=75)

    def test_an_open_one(self, cache: HubCache) -> None:
        with cache.blob(ALONE).open():
            assert cache.rm(cache.key, code=75).startswith("InUse: ")

    def test_one_that_is_fetched_now(self, cache: HubCache) -> None:
        lease = acquire(cache.root / ".fetcher/staging", cache.key, stale=60.0)
        assert lease is not None
        assert "being fetched" in cache.rm(cache.key, code=75)
        lease.dissolve()

    def test_one_that_a_ref_of_another_tool_names(self, cache: HubCache) -> None:
        (cache.repository / "refs" / "v1").write_text(cache.commit)
        assert "hf cache rm" in cache.rm(cache.key, code=73)

    def test_one_whose_snapshot_holds_a_file_of_another_tool(self, cache: HubCache) -> None:
        (cache.repository / "snapshots" / cache.commit / "notes.txt").write_text("mine")
        assert "hf cache rm" in cache.rm(cache.key, code=73)

    def test_all_that_are_named_with_one_that_is_pinned(self, cache: HubCache) -> None:
        cache.origin.add_repo("org/other", OTHER)
        other = cache.fetch("hf://org/other")
        assert run_fetcher("pin", other, "--cache-dir", cache.root).returncode == 0
        assert cache.rm(cache.key, other, code=73).startswith("Pinned: ")


class TestBesideOthers:
    def test_a_snapshot_of_another_tool_and_its_blobs_stay(self, cache: HubCache) -> None:
        second = cache.origin.add_repo("org/model", OTHER).refs["main"]
        huggingface_hub.hf_hub_download(
            "org/model", SHARED, cache_dir=cache.root, revision=second, endpoint=cache.origin.endpoint
        )
        kept, gone = cache.blob(SHARED), cache.blob(ALONE)
        cache.rm(cache.key)
        assert cache.scanned() == {"org/model": {second}}
        assert (kept.exists(), gone.exists()) == (True, False)
        assert (cache.repository / "snapshots" / second / SHARED).read_bytes() == FILES[SHARED]

    def test_another_artifact_of_the_same_snapshot_keeps_its_files(self, cache: HubCache) -> None:
        part = cache.fetch("hf://org/model", "--include", SHARED)
        gone = cache.blob(ALONE)
        cache.rm(cache.key)
        assert cache.scanned() == {"org/model": {cache.commit}}
        assert not gone.exists()
        assert run_fetcher("verify", part, "--cache-dir", cache.root).returncode == 0
        cache.rm(part)
        assert cache.files() == []

    def test_an_artifact_by_another_ref_keeps_the_snapshot(self, cache: HubCache) -> None:
        pinned = cache.fetch(f"hf://org/model@{cache.commit}")
        cache.rm(cache.key)
        assert cache.scanned() == {"org/model": {cache.commit}}
        cache.rm(pinned)
        assert cache.scanned() == {}


@pytest.mark.parametrize("command", ["list", "du", "show"])
def test_other_commands_show_the_artifact(cache: HubCache, command: str) -> None:
    words = ["hf://org/model"] if command == "show" else []
    done = run_fetcher(command, *words, "--cache-dir", cache.root)
    assert (done.returncode, "org/model" in done.stdout) == (0, True)
