"""Room in a bounded cache during a fetch: files of unknown size, waits that can be cancelled, and promises that end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cache import adopt, adoptable
from fetcher.errors import CacheBusy, LeaseTimeout, OutOfSpace, UsageError
from fetcher.events import BytesHashed, Event, Evicted, Planned, Subscriber
from fetcher.quantities import Amount
from fetcher.settings import Part, Settings
from fetcher.store import room
from fetcher.store.lease import acquire, observe
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Chunked
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Trickle
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

MiB = 1024 * 1024
LONG_AGO = 1_600_000_000.0
MODEL = {"model.safetensors": random_bytes("m", 8 * MiB)}


class TestUnknownSize:
    """A server that does not say how long a file is. Room is promised in steps."""

    @pytest.fixture(autouse=True)
    def _small_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "STEP", 4 * MiB)

    def address(self, origin: Origin, size: int) -> str:
        origin.faults.add(Fault(Chunked()))
        origin.faults.add(Fault(Trickle(size=MiB, interval=0.1), path="/model.bin"))
        return origin.add_file("/model.bin", random_bytes("growing", size))

    async def test_a_file_that_fits_gets_step_after_step(self, origin: Origin, fetch: Fetcher) -> None:
        artifact = await fetch(self.address(origin, 10 * MiB), max_size=Amount(20 * MiB))
        assert artifact.bytes == 10 * MiB

    async def test_it_ends_when_a_step_is_refused_and_nothing_is_published(self, origin: Origin, fetch: Fetcher) -> None:
        with pytest.raises(OutOfSpace, match="no space left on device"):
            await fetch(self.address(origin, 16 * MiB), max_size=Amount(12 * MiB))
        assert fetch.visible() == []

    async def test_idle_artifacts_make_room_for_a_later_step(self, origin: Origin, fetch: Fetcher) -> None:
        old = origin.add_file("/old.bin", random_bytes("old", 6 * MiB))
        await fetch(old)
        os.utime(fetch.cache_dir / ".fetcher/usage" / ArtifactRef(old).key, (LONG_AGO, LONG_AGO))
        artifact = await fetch(self.address(origin, 10 * MiB), max_size=Amount(16 * MiB))
        assert artifact.bytes == 10 * MiB
        assert [each.key for each in fetch.events if isinstance(each, Evicted)] == [ArtifactRef(old).key]


class TestPromise:
    async def test_the_heartbeat_of_a_fetch_says_what_it_was_promised(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 8 * MiB)})
        directory = fetch.cache_dir / ".fetcher/staging" / ArtifactRef("hf://org/model").key
        promised: list[int] = []

        def listen(_: Event) -> None:
            if (seen := observe(directory)) is not None:
                promised.append(seen.reserved)

        await fetch(listen=listen, max_size=Amount(100 * MiB))
        records = 64 * 1024
        assert 8 * MiB <= max(promised) < 8 * MiB + records

    async def test_a_refused_fetch_leaves_no_promise(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 8 * MiB)})
        with pytest.raises(OutOfSpace):
            await fetch(max_size=Amount(4 * MiB))
        assert list((fetch.cache_dir / ".fetcher/staging").iterdir()) == []

    async def test_no_byte_is_fetched_before_there_is_room(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 8 * MiB)})
        with pytest.raises(OutOfSpace):
            await fetch(max_size=Amount(4 * MiB))
        assert [each for each in origin.requests if each.origin == "cdn"] == []


class TestOtherWaysIn:
    """Adopting copies, and a part of a cooperative fetch, are promised their room before the first byte too."""

    async def adopted(self, directory: Path, root: Path, limit: int, listen: Subscriber) -> None:
        what = adoptable(directory, uri="hf://org/model", revision="main", include=(), exclude=(), offline=False)
        await adopt(what, Settings(cache_dir=root, max_size=Amount(limit)), listen)

    @pytest.fixture
    def root(self, origin: Origin, small_filesystem: MakeFilesystem) -> Path:
        """A root on a filesystem that cannot clone, beside a directory with the files of the model."""
        filesystem = small_filesystem("ext4", size=64 * MiB)
        origin.add_repo("org/model", MODEL)
        (filesystem.path / "there").mkdir()
        (filesystem.path / "there/model.safetensors").write_bytes(MODEL["model.safetensors"])
        return filesystem.path / "cache"

    async def test_an_adoption_holds_a_promise_while_it_copies(self, root: Path) -> None:
        promised: list[int] = []

        def listen(event: Event) -> None:
            seen = observe(root / ".fetcher/staging" / ArtifactRef("hf://org/model", "main").key)
            if isinstance(event, BytesHashed) and seen is not None:
                promised.append(seen.reserved)

        await self.adopted(root.parent / "there", root, 40 * MiB, listen)
        assert min(promised) >= 8 * MiB

    async def test_an_adoption_that_is_refused_copies_nothing(self, root: Path) -> None:
        events: list[Event] = []
        with pytest.raises(OutOfSpace, match=r"needed 8\.0 MiB"):
            await self.adopted(root.parent / "there", root, 4 * MiB, events.append)
        assert not [each for each in events if isinstance(each, BytesHashed)]
        assert list((root / ".fetcher/staging").iterdir()) == []

    async def test_a_part_that_is_refused_fetches_nothing(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", MODEL)
        with pytest.raises(OutOfSpace, match=r"needed 8\.0 MiB"):
            await fetch(part=Part(0, 2), max_size=Amount(4 * MiB))
        assert [each for each in origin.requests if each.origin == "cdn"] == []

    async def test_a_part_holds_a_promise_for_its_unit(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", MODEL)
        promised: list[int] = []

        def listen(event: Event) -> None:
            staging = fetch.cache_dir / ".fetcher/staging"
            if isinstance(event, Planned):
                promised.extend(seen.reserved for path in staging.iterdir() if (seen := observe(path)) is not None)

        await fetch(part=Part(0, 1), max_size=Amount(40 * MiB), listen=listen)
        assert max(promised) >= 8 * MiB


class TestWaiting:
    async def test_a_fetch_that_waits_for_the_root_wide_lease_can_be_cancelled(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", MiB)})
        staging = fetch.cache_dir / ".fetcher/staging"
        staging.mkdir(parents=True)
        ruling = acquire(staging, "room", stale=60.0)
        assert ruling is not None
        task = asyncio.ensure_future(fetch(max_size=Amount(100 * MiB)))
        await asyncio.to_thread(wait_until, lambda: len(list(staging.iterdir())) > 1, "the fetch has its own lease")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ruling.dissolve()
        assert list(staging.iterdir()) == []

    async def test_a_wait_for_the_root_wide_lease_ends(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", MiB)})
        staging = fetch.cache_dir / ".fetcher/staging"
        staging.mkdir(parents=True)
        ruling = acquire(staging, "room", stale=60.0)
        assert ruling is not None
        monkeypatch.setattr("fetcher.store.contender._PATIENCE", 0.1)
        with pytest.raises(LeaseTimeout, match="room"):
            await fetch(max_size=Amount(100 * MiB))
        ruling.dissolve()

    async def test_an_eviction_under_way_is_waited_for_before_more_is_evicted(
        self, origin: Origin, fetch: Fetcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its space is free in a moment."""
        for name in ("a", "b"):
            origin.add_repo(f"org/{name}", {"model.safetensors": random_bytes(name, 6 * MiB)})
            await fetch(f"hf://org/{name}")
            os.utime(fetch.cache_dir / ".fetcher/usage" / ArtifactRef(f"hf://org/{name}").key, (LONG_AGO, LONG_AGO))
        key = ArtifactRef("hf://org/a").key
        evictor = acquire(fetch.cache_dir / ".fetcher/staging", key, stale=60.0, evicting=True)
        assert evictor is not None
        (fetch.cache_dir / key).rename(evictor.data / "evicted")

        def finish(_: float) -> None:
            evictor.dissolve()

        monkeypatch.setattr("fetcher.store.room.time.sleep", finish)
        origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 6 * MiB)})
        await fetch(max_size=Amount(16 * MiB))
        assert (fetch.cache_dir / ArtifactRef("hf://org/b").key).exists()


class TestReplacedVersions:
    """A refresh keeps the former version for engines that still read it. It counts, and goes before anything else."""

    async def refreshed(self, origin: Origin, fetch: Fetcher) -> Path:
        """Fetch two versions of a model, and return the directory of the replaced one."""
        for version in ("one", "two"):
            origin.add_repo("org/model", {"model.safetensors": random_bytes(version, 6 * MiB)})
            await fetch(refresh="on-change")
        origin.add_repo("org/next", {"model.safetensors": random_bytes("next", 6 * MiB)})
        (old,) = (fetch.cache_dir / ".fetcher/old").iterdir()
        return old

    async def test_an_idle_one_makes_room_and_artifacts_stay(self, origin: Origin, fetch: Fetcher) -> None:
        old = await self.refreshed(origin, fetch)
        os.utime(fetch.cache_dir / ".fetcher/usage" / ArtifactRef("hf://org/model").key, (LONG_AGO, LONG_AGO))
        old.rename(old.with_name(f"{old.name.partition('.')[0]}.1600000000000000000"))
        await fetch("hf://org/next", max_size=Amount(16 * MiB))
        assert list((fetch.cache_dir / ".fetcher/old").iterdir()) == []
        assert (fetch.cache_dir / ArtifactRef("hf://org/model").key).exists()

    async def test_one_that_was_replaced_just_now_makes_the_cache_busy(self, origin: Origin, fetch: Fetcher) -> None:
        old = await self.refreshed(origin, fetch)
        with pytest.raises(CacheBusy, match=r"replaced versions 6\.0 MiB"):
            await fetch("hf://org/next", max_size=Amount(16 * MiB))
        assert old.exists()

    async def test_an_open_one_stays(self, origin: Origin, fetch: Fetcher) -> None:
        old = await self.refreshed(origin, fetch)
        with (old / "model.safetensors").open():
            await fetch("hf://org/next", max_size=Amount(16 * MiB), min_idle=0.0)
        assert old.exists()
        assert not (fetch.cache_dir / ArtifactRef("hf://org/model").key).exists()


async def test_the_same_artifact_in_the_hubs_layout_is_not_taken_for_the_one_with_its_key(
    origin: Origin, fetch: Fetcher
) -> None:
    origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 6 * MiB)})
    keyed = await fetch()
    hub = await fetch(layout="hf-cache")
    os.utime(fetch.cache_dir / ".fetcher/usage" / keyed.cache_key, (LONG_AGO, LONG_AGO))
    origin.add_repo("org/next", {"model.safetensors": random_bytes("next", 6 * MiB)})
    await fetch("hf://org/next", max_size=Amount(16 * MiB), dedupe="off")
    assert (keyed.path.exists(), hub.path.exists()) == (False, True)


async def test_what_others_fetch_now_makes_the_cache_busy(origin: Origin, fetch: Fetcher) -> None:
    origin.add_repo("org/model", {"model.safetensors": random_bytes("m", 8 * MiB)})
    fetch.cache_dir.mkdir()
    lease = acquire(fetch.cache_dir / ".fetcher/staging", "f" * 16, stale=60.0)
    assert lease is not None
    lease.reserve(90 * MiB)
    with pytest.raises(CacheBusy, match=r"being fetched 90\.0 MiB"):
        await fetch(max_size=Amount(95 * MiB))
    lease.dissolve()


async def test_limits_of_a_cache_do_not_apply_to_a_destination(tmp_path: Path) -> None:
    import fetcher

    with pytest.raises(UsageError, match="cache_dir"):
        await fetcher.fetch_async("hf://org/model", dest=tmp_path, max_size=Amount(1))
