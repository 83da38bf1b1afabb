"""Renaming artifacts away and deleting them: eviction and hits see each other, and a kill leaves the artifact or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine.hits import find_hit
from fetcher.engine.request import choose_placement
from fetcher.planning.eviction import Kept
from fetcher.settings import Settings
from fetcher.store.catalog import Entry, find
from fetcher.store.claims import Claim, claim
from fetcher.store.contender import Contender
from fetcher.store.eviction import Doomed, Keeping, doom
from fetcher.store.lease import acquire
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.usage import last_used
from tests.lab.command import run_fetcher

MiB = 1024 * 1024
LONG_AGO = 1_600_000_000.0
NOW = LONG_AGO + 1_000_000.0
STALE = 60.0


class Cache:
    """A root with one artifact, that was used long ago."""

    def __init__(self, root: Path, model: Path) -> None:
        assert run_fetcher("fetch", model, "--cache-dir", root).returncode == 0
        self.root = root
        self.uri = str(model)
        self.key = ArtifactRef(self.uri).key
        os.utime(root / ".fetcher/usage" / self.key, (LONG_AGO, LONG_AGO))

    @property
    def entry(self) -> Entry:
        return find(self.root, self.key)

    @property
    def staging(self) -> Path:
        return self.root / ".fetcher/staging"

    def hit(self) -> bool:
        ref, settings = ArtifactRef(self.uri), Settings(cache_dir=self.root)
        return find_hit(choose_placement(ref, settings), ref, settings) is not None

    def doom(self, **keeping: float | None) -> tuple[list[Doomed], dict[str, Kept]]:
        rule = Keeping(self.root, NOW, keeping.get("min_idle", 3600.0))
        return doom(self.root, [self.entry], rule, stale=STALE, keep=lambda: None)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", make_checkpoint(tmp_path / "model", shards=2, shard_size=MiB))


class TestRemoval:
    def test_an_idle_artifact_disappears_with_its_record(self, cache: Cache) -> None:
        (doomed,), kept = cache.doom()
        assert not (cache.root / cache.key).exists()
        assert kept == {}
        doomed.delete()
        assert list(cache.staging.iterdir()) == []
        assert last_used(cache.root, cache.key) is None

    def test_a_doomed_artifact_can_be_restored(self, cache: Cache) -> None:
        (doomed,), _ = cache.doom()
        doomed.restore()
        assert run_fetcher("verify", cache.key, "--cache-dir", cache.root).returncode == 0
        assert list(cache.staging.iterdir()) == []

    @pytest.mark.parametrize(
        ("record", "reason"),
        [(Claim("", "pin", None), "pinned"), (Claim("", "hold", NOW + 1, "pod"), "held"), (Claim("", "pin", NOW - 1), None)],
        ids=["pinned", "held", "a lapsed pin"],
    )
    def test_claims_that_last_keep_it(self, cache: Cache, record: Claim, reason: Kept | None) -> None:
        claim(cache.root, Claim(cache.key, record.kind, record.until, record.holder))
        _, kept = cache.doom()
        assert kept.get(cache.key) == reason
        assert (cache.root / cache.key).exists() == (reason is not None)

    def test_an_open_file_keeps_it(self, cache: Cache) -> None:
        with (cache.root / cache.key / "config.json").open():
            assert cache.doom()[1] == {cache.key: "open"}

    def test_a_recent_use_keeps_it_from_a_rule_and_not_from_a_person(self, cache: Cache) -> None:
        os.utime(cache.root / ".fetcher/usage" / cache.key, (NOW - 60, NOW - 60))
        assert cache.doom()[1] == {cache.key: "recent"}
        assert cache.doom(min_idle=None)[1] == {}

    def test_a_foreign_file_in_its_directory_keeps_it_also_in_the_place_of_one_of_ours(self, cache: Cache) -> None:
        directory = cache.root / cache.key
        (directory / "config.json").unlink()
        (directory / "notes.txt").write_text("mine")
        assert cache.doom(min_idle=None)[1] == {cache.key: "foreign"}

    def test_a_fetch_of_a_newer_version_keeps_it(self, cache: Cache) -> None:
        lease = acquire(cache.staging, cache.key, stale=STALE)
        assert lease is not None
        assert cache.doom()[1] == {cache.key: "leased"}
        lease.dissolve()

    def test_a_fetch_that_was_left_unfinished_stays_resumable_if_something_keeps_the_artifact(self, cache: Cache) -> None:
        lease = acquire(cache.staging, cache.key, stale=STALE)
        assert lease is not None
        (lease.data / "model.safetensors").write_bytes(b"half")
        lease.release()
        claim(cache.root, Claim(cache.key, "pin", None))
        assert cache.doom()[1] == {cache.key: "pinned"}
        assert [path.read_bytes() for path in cache.staging.glob("*/data.*/model.safetensors")] == [b"half"]


class TestHitAndEviction:
    def test_an_artifact_that_is_being_evicted_is_no_hit(self, cache: Cache) -> None:
        lease = acquire(cache.staging, cache.key, stale=STALE, evicting=True)
        assert lease is not None
        assert not cache.hit()
        lease.dissolve()
        assert cache.hit()

    def test_the_evictor_sees_a_hit_that_came_just_before(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        attempt = Contender.attempt

        def after_a_hit(contender: Contender) -> object:
            lease = attempt(contender)
            assert not cache.hit()  # it looks after the evictor's mark, and its use is recorded all the same
            return lease

        monkeypatch.setattr(Contender, "attempt", after_a_hit)
        rule = Keeping(cache.root, NOW, 3600.0)
        _, kept = doom(cache.root, [cache.entry], rule, stale=STALE, keep=lambda: None)
        assert kept == {cache.key: "recent"}
        assert cache.hit()

    def test_a_hit_that_comes_just_after_is_a_miss(self, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        hits: list[bool] = []
        reason = Keeping.reason

        def then_a_hit(keeping: Keeping, entry: Entry) -> Kept | None:
            found = reason(keeping, entry)
            hits.append(cache.hit())
            return found

        monkeypatch.setattr(Keeping, "reason", then_a_hit)
        (doomed,), _ = cache.doom()
        assert hits == [False]
        doomed.delete()

    def test_a_dead_evictor_does_not_hide_the_artifact(self, cache: Cache) -> None:
        _die_holding(cache)
        assert cache.hit()

    def test_a_fetch_waits_for_an_eviction_and_fetches_again(self, cache: Cache) -> None:
        (doomed,), _ = cache.doom()
        done = run_fetcher("fetch", cache.uri, "--cache-dir", cache.root, "--lease-wait", "0")
        assert (done.returncode, "LeaseTimeout" in done.stderr) == (75, True)
        doomed.delete()
        assert run_fetcher("fetch", cache.uri, "--cache-dir", cache.root, "--lease-wait", "0").returncode == 0


class TestKilled:
    @pytest.mark.parametrize("step", ["before the rename", "after the rename", "during the deletion"])
    def test_a_kill_leaves_the_artifact_or_nothing_and_the_next_fetch_works(self, cache: Cache, step: str) -> None:
        script = f"""
import os, sys
from pathlib import Path
from fetcher.store import eviction, beneath
from fetcher.store.catalog import find
step, root, key = {step!r}, Path(sys.argv[1]), sys.argv[2]
def die(*_, **__): os._exit(9)
if step == "before the rename": eviction.rename = die
if step == "after the rename": eviction.sync_directory = die
if step == "during the deletion": eviction.remove = die
(doomed,), kept = eviction.doom(root, [find(root, key)], eviction.Keeping(root, {NOW}, 3600.0), stale=60.0, keep=lambda: None)
doomed.delete()
"""
        done = subprocess.run([sys.executable, "-c", script, str(cache.root), cache.key], check=False)
        assert done.returncode == 9
        directory = cache.root / cache.key
        assert directory.exists() == (step == "before the rename")
        if directory.exists():
            assert run_fetcher("verify", cache.key, "--cache-dir", cache.root).returncode == 0
        assert run_fetcher("fetch", cache.uri, "--cache-dir", cache.root, "--lease-wait", "5").returncode == 0
        assert run_fetcher("gc", "--unused-for", "0", "--cache-dir", cache.root).returncode == 0
        assert list(cache.staging.iterdir()) == []


def _die_holding(cache: Cache) -> None:
    script = (
        "import os, sys; from pathlib import Path; from fetcher.store.lease import acquire\n"
        "acquire(Path(sys.argv[1]), sys.argv[2], stale=60.0, evicting=True); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(cache.staging), cache.key], check=True)
