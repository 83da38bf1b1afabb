"""A repair in a bounded cache: it asks for room as a fetch does, and a refused one changes nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fetcher.artifact import CHUNK_SIZE, ArtifactRef
from fetcher.cache import init
from fetcher.errors import CacheBusy, OutOfSpace
from fetcher.events import Event, Evicted, Planned
from fetcher.quantities import Amount
from fetcher.store.limits import CacheLimits
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.engine.test_repair import SHARD, Repairer, damage, weights_requested
from tests.lab.command import run_fetcher
from tests.lab.fixtures import MakeFilesystem

LONG_AGO = 1_600_000_000.0


@pytest.fixture
def repaired(small_filesystem: MakeFilesystem) -> Repairer:
    """A repairer of a root on a filesystem that cannot clone, so that a repair copies what is good."""
    return Repairer(small_filesystem("ext4", size=200 * MiB).path / "cache")


@pytest.fixture
def fetch(repaired: Repairer) -> Fetcher:
    return Fetcher(repaired.root)


def limit(root: Path, size: int) -> None:
    init(root, CacheLimits(max_size=Amount(size)))


async def damaged_artifact(origin: Origin, fetch: Fetcher) -> tuple[Path, dict[str, bytes]]:
    """Fetch a model and flip a bit of its shard of 20 MiB. Return its directory and its content."""
    origin.add_repo("org/model", FILES)
    path = (await fetch()).path
    return path, FILES | {SHARD: damage(path / SHARD, 5)}


async def other_artifact(origin: Origin, fetch: Fetcher, *, used: float | None = None) -> Path:
    """Fetch a model of 24 MiB. `used`: when it was last used, in seconds since 1970."""
    origin.add_repo("org/other", {"model.safetensors": random_bytes("other", 24 * MiB)})
    path = (await fetch("hf://org/other")).path
    if used is not None:
        os.utime(fetch.cache_dir / ".fetcher/usage" / ArtifactRef("hf://org/other").key, (used, used))
    return path


class TestRefusal:
    async def test_the_numbers_are_told_and_the_damaged_artifact_stays(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        path, content = await damaged_artifact(origin, fetch)
        limit(repaired.root, 40 * MiB)
        origin.clear_requests()
        with pytest.raises(OutOfSpace, match=r"needed 20\.0 MiB, used 2\d\.\d MiB, evictable 0 B"):
            await repaired()
        assert contents(path) == content
        assert not weights_requested(origin)
        assert list((repaired.root / ".fetcher/staging").iterdir()) == []

    async def test_what_was_used_recently_makes_the_cache_busy(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        path, content = await damaged_artifact(origin, fetch)
        other = await other_artifact(origin, fetch)
        limit(repaired.root, 60 * MiB)
        with pytest.raises(CacheBusy, match=r"in use or used recently 4\d\.\d MiB"):
            await repaired()
        assert contents(path) == content
        assert other.exists()


class TestRoom:
    async def test_an_idle_artifact_is_evicted_but_never_the_damaged_one(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        path, _ = await damaged_artifact(origin, fetch)
        other = await other_artifact(origin, fetch, used=LONG_AGO + 1)
        os.utime(repaired.root / ".fetcher/usage" / path.name, (LONG_AGO, LONG_AGO))
        limit(repaired.root, 60 * MiB)
        assert (await repaired()).repaired == (SHARD,)
        assert [each.key for each in repaired.events if isinstance(each, Evicted)] == [other.name]
        assert contents(path) == FILES

    async def test_a_fetch_beside_a_repair_sees_its_promise(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        """The limit has room for the repair or for the fetch. The fetch comes while the repair is under way."""
        path, _ = await damaged_artifact(origin, fetch)
        origin.add_repo("org/other", {"model.safetensors": random_bytes("other", 24 * MiB)})
        limit(repaired.root, 60 * MiB)
        beside: list[subprocess.CompletedProcess[str]] = []

        def listen(event: Event) -> None:
            if isinstance(event, Planned):
                beside.append(run_fetcher("fetch", "hf://org/other", "--cache-dir", repaired.root))

        repaired.listen = listen
        assert (await repaired()).ok
        assert [each.returncode for each in beside] == [75]
        assert "being fetched 20.0 MiB" in beside[0].stderr
        assert contents(path) == FILES
        await fetch("hf://org/other")

    async def test_where_the_filesystem_clones_only_the_damaged_chunks_need_room(
        self, origin: Origin, small_filesystem: MakeFilesystem
    ) -> None:
        repaired = Repairer(small_filesystem("btrfs", size=256 * MiB).path / "cache")
        path, _ = await damaged_artifact(origin, Fetcher(repaired.root))
        damage(path / SHARD, 5)
        damage(path / SHARD, CHUNK_SIZE + 5)
        limit(repaired.root, 40 * MiB)
        assert (await repaired()).fetched == 4 * MiB + 7
        assert contents(path) == FILES
