"""A repair fetches the damaged chunks of a published artifact, and nothing else, from the revision that was fetched."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import CHUNK_SIZE
from fetcher.cache import Entry, VerifyReport, init, named, repair, verify
from fetcher.errors import ContentChanged, LeaseTimeout, NotFound, OutOfSpace, Transient, Unreachable, UsageError
from fetcher.events import Event, FileRepaired, FileVerified, Subscriber, Warned, silent
from fetcher.manifest import RELATIVE_PATH
from fetcher.quantities import Amount
from fetcher.settings import Settings
from fetcher.store.lease import acquire
from fetcher.store.limits import CacheLimits
from fetcher.store.selector import placement_of
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import FlipBit, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.lab.filesystems import Kind
from tests.lab.fixtures import MakeFilesystem

SHARD = "model-00001-of-00002.safetensors"
OTHER = "model-00002-of-00002.safetensors"
LATER = FILES | {SHARD: random_bytes("later", 20 * MiB + 7)}


async def two_names_of_one_shard(origin: Origin, fetch: Fetcher) -> tuple[Path, Path]:
    """Fetch a model and its fork, which share the inode of a shard. Return their directories."""
    for name in ("org/model", "org/fork"):
        origin.add_repo(name, FILES)
    path, fork = (await fetch()).path, (await fetch("hf://org/fork")).path
    (fork / SHARD).unlink()
    os.link(path / SHARD, fork / SHARD)
    return path, fork


class Repairer:
    """Verifies an artifact, and repairs what is damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[Event] = []
        self.listen: Subscriber = self.events.append

    def entry(self, what: str) -> Entry:
        return named(what, lambda: self.root).entry

    async def __call__(self, what: str = "hf://org/model", *, full: bool = False, **options: Any) -> VerifyReport:
        entry = self.entry(what)
        report = verify(entry, full=full, on_event=silent)
        names = ("uri", "apart", "step")
        given = {name: options.pop(name) for name in names if name in options}
        options = {"retry_for": 5.0, "timeout_stall": 1.0, "max_concurrency": 4} | options
        settings = Settings(cache_dir=self.root, **options)
        return await repair(entry, report, settings, on_event=self.listen, **given)


@pytest.fixture
def repaired(tmp_path: Path) -> Repairer:
    return Repairer(tmp_path / "cache")


def damage(path: Path, position: int) -> bytes:
    """Flip a bit of a published file, as a disk does. Returns the damaged content."""
    with path.open("r+b") as stream:
        stream.seek(position)
        (byte,) = stream.read(1)
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))
    return path.read_bytes()


def weights_requested(origin: Origin) -> list[tuple[int, int] | None]:
    """The ranges of weights that were requested; None for a whole file."""
    ranges = [request.byte_range for request in origin.requests if request.origin == "cdn"]
    return [(each.start, each.stop) if each else None for each in ranges]


class TestDamagedChunks:
    async def test_one_flipped_bit_costs_one_chunk(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damage(path / SHARD, CHUNK_SIZE + 5)
        origin.clear_requests()
        report = await repaired()
        assert (report.ok, report.repaired, report.fetched) == (True, (SHARD,), 4 * MiB + 7)
        assert weights_requested(origin) == [(CHUNK_SIZE, 20 * MiB + 7)]
        assert contents(path) == FILES
        assert [each.path for each in repaired.events if isinstance(each, FileRepaired)] == [SHARD]

    async def test_an_intact_artifact_needs_no_source(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        await fetch()
        origin.clear_requests()
        report = await repaired()
        assert (report.ok, report.repaired, report.fetched) == (True, (), 0)

    async def test_several_files_are_repaired(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damage(path / SHARD, 5)
        damage(path / OTHER, 0)
        damage(path / "config.json", 3)
        report = await repaired(full=True)
        assert set(report.repaired) == {SHARD, OTHER, "config.json"}
        assert contents(path) == FILES

    @pytest.mark.parametrize("name", [*FILES])
    async def test_a_missing_file_is_fetched(self, origin: Origin, fetch: Fetcher, repaired: Repairer, name: str) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        (path / name).unlink()
        assert (await repaired()).repaired == (name,)
        assert contents(path) == FILES

    async def test_a_missing_directory_is_made_again(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        (path / "tokenizer/empty.txt").unlink()
        (path / "tokenizer").rmdir()
        assert (await repaired()).ok
        assert contents(path) == FILES

    async def test_a_truncated_file_keeps_its_whole_chunks(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        os.truncate(path / SHARD, CHUNK_SIZE + 100)
        origin.clear_requests()
        assert (await repaired()).ok
        assert weights_requested(origin) == [(CHUNK_SIZE, 20 * MiB + 7)]
        assert contents(path) == FILES

    async def test_a_file_that_has_grown_is_cut(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        with (path / SHARD).open("ab") as stream:
            stream.write(b"more")
        report = await repaired()
        assert (report.ok, report.fetched) == (True, 0)
        assert contents(path) == FILES

    async def test_a_file_without_digest_is_compared_with_the_chunks(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        weights = random_bytes("plain", 20 * MiB)
        address = origin.add_file("/model.bin", weights)
        path = (await fetch(address)).path
        damage(path / "model.bin", 17 * MiB)
        report = await repaired(address)
        assert (report.ok, report.fetched) == (True, 4 * MiB)
        assert contents(path) == {"model.bin": weights}


class TestPublishedFiles:
    async def test_a_reader_keeps_the_inode_that_it_has_open(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damaged = damage(path / SHARD, 5)
        with (path / SHARD).open("rb") as reader:
            await repaired()
            assert reader.read() == damaged
            assert os.fstat(reader.fileno()).st_ino != (path / SHARD).stat().st_ino

    async def test_other_files_and_the_manifest_stay(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        kept = [path / name for name in (OTHER, "config.json", RELATIVE_PATH)]
        before = [(each.stat().st_ino, each.stat().st_mtime_ns) for each in kept]
        damage(path / SHARD, 5)
        await repaired()
        assert [(each.stat().st_ino, each.stat().st_mtime_ns) for each in kept] == before

    async def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer, tmp_path: Path
    ) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        victim = tmp_path / "victim"
        (path / SHARD).rename(victim)
        damaged = damage(victim, 5)
        (path / SHARD).symlink_to(victim)
        assert (await repaired()).ok
        assert victim.read_bytes() == damaged
        assert not (path / SHARD).is_symlink()
        assert contents(path) == FILES

    async def test_nothing_is_left_in_staging(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damage(path / SHARD, 5)
        await repaired()
        assert not list((fetch.cache_dir / ".fetcher/staging").iterdir())

    async def test_a_hard_link_of_another_artifact_is_named_and_verified(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        path, fork = await two_names_of_one_shard(origin, fetch)
        damaged = damage(path / SHARD, 5)
        report = await repaired()
        assert (report.bad, report.ok) == ((), False)
        assert [(each.artifact, each.path) for each in report.siblings] == [(str(fork), SHARD)]
        assert "chunk 0" in (report.siblings[0].problem or "")
        assert contents(path) == FILES
        assert (fork / SHARD).read_bytes() == damaged
        assert (await repaired("hf://org/fork")).ok

    async def test_an_artifact_that_is_verified_apart_is_no_sibling(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        path, fork = await two_names_of_one_shard(origin, fetch)
        damage(path / SHARD, 5)
        assert (await repaired(apart=[fork])).siblings == ()


class TestPlaces:
    async def test_a_destination(self, origin: Origin, fetch: Fetcher, repaired: Repairer, tmp_path: Path) -> None:
        origin.add_repo("org/model", FILES)
        await fetch(dest=tmp_path / "model")
        damage(tmp_path / "model" / SHARD, 5)
        assert (await repaired(str(tmp_path / "model"))).repaired == (SHARD,)
        assert contents(tmp_path / "model") == FILES

    async def test_a_directory_below_a_root_takes_the_lease_of_its_key(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        placement = placement_of(repaired.entry(str(path)))
        assert (placement.staging, placement.lease_name) == (fetch.cache_dir / ".fetcher/staging", path.name)

    async def test_two_artifacts_in_one_destination(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer, tmp_path: Path
    ) -> None:
        origin.add_repo("org/model", FILES)
        origin.add_repo("org/other", {"other.safetensors": FILES[OTHER]})
        for uri in ("hf://org/model", "hf://org/other"):
            await fetch(uri, dest=tmp_path / "shared", shared_dest=True)
        damage(tmp_path / "shared/other.safetensors", 5)
        repairing = Repairer(tmp_path)
        assert (await repairing("hf://org/other")).repaired == ("other.safetensors",)
        assert contents(tmp_path / "shared") == FILES | {"other.safetensors": FILES[OTHER]}

    async def test_a_hub_cache_keeps_its_refs(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        repository = origin.add_repo("org/model", FILES)
        path = (await fetch(layout="hf-cache")).path
        origin.update_repo(repository, LATER)
        blob = damage(path / SHARD, 5)
        assert blob != FILES[SHARD]
        assert (await repaired()).repaired == (SHARD,)
        assert contents(path) == FILES
        assert (path / SHARD).is_symlink()
        assert (path.parents[1] / "refs/main").read_text() == path.name

    async def test_a_lost_link_of_a_hub_cache_is_made_again(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch(layout="hf-cache")).path
        (path / SHARD).unlink()
        assert (await repaired()).ok
        assert contents(path) == FILES


class TestFilesystems:
    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
    async def test_good_chunks_are_cloned_or_copied(self, origin: Origin, small_filesystem: MakeFilesystem, kind: Kind) -> None:
        filesystem = small_filesystem(kind, size=512 * MiB)
        origin.add_repo("org/model", FILES)
        path = (await Fetcher(filesystem.path)()).path
        damage(path / SHARD, CHUNK_SIZE + 5)
        report = await Repairer(filesystem.path)()
        assert (report.ok, report.fetched) == (True, 4 * MiB + 7)
        assert contents(path) == FILES

    async def test_a_full_volume_keeps_the_damaged_file_and_nothing_else(
        self, origin: Origin, small_filesystem: MakeFilesystem
    ) -> None:
        filesystem = small_filesystem("ext4", size=64 * MiB)
        origin.add_repo("org/model", FILES)
        path = (await Fetcher(filesystem.path)()).path
        damaged = damage(path / SHARD, 5)
        filesystem.fill(leave=2 * MiB)
        origin.clear_requests()
        with pytest.raises(OutOfSpace):
            await Repairer(filesystem.path)()
        assert contents(path) == FILES | {SHARD: damaged}
        assert not weights_requested(origin)
        assert not list((filesystem.path / ".fetcher/staging").iterdir())


class TestSource:
    async def test_the_revision_of_the_manifest_is_asked_and_not_the_newest(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        origin.update_repo(repository, LATER)
        damage(path / SHARD, 5)
        assert (await repaired()).ok
        assert contents(path) == FILES

    async def test_other_content_at_the_source_changes_nothing(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        address = origin.add_file("/model.bin", random_bytes("before", 2 * MiB))
        path = (await fetch(address)).path
        damaged = damage(path / "model.bin", 5)
        origin.add_file("/model.bin", random_bytes("after", 2 * MiB))
        with pytest.raises(ContentChanged, match=r"model\.bin: the source has"):
            await repaired(address)
        assert contents(path) == {"model.bin": damaged}

    async def test_a_file_that_is_no_longer_listed_changes_nothing(
        self, fetch: Fetcher, repaired: Repairer, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        for name in ("a.safetensors", "b.safetensors"):
            (source / name).write_bytes(random_bytes(name, MiB))
        path = (await fetch(str(source))).path
        (source / "a.safetensors").unlink()
        damaged = damage(path / "a.safetensors", 5)
        with pytest.raises(ContentChanged, match="no longer lists"):
            await repaired(str(source))
        assert (path / "a.safetensors").read_bytes() == damaged

    async def test_a_lost_source_changes_nothing(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damaged = damage(path / SHARD, 5)
        origin.stop()
        with pytest.raises(Unreachable):
            await repaired(retry_for=0.5)
        assert contents(path) == FILES | {SHARD: damaged}

    async def test_wrong_bytes_of_the_source_leave_the_old_file_and_repair_the_others(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damaged = damage(path / SHARD, 5)
        damage(path / "config.json", 1)
        origin.faults.add(Fault(FlipBit(7), origin="cdn"))
        report = await repaired()
        assert (report.repaired, [bad[0] for bad in report.bad]) == (("config.json",), [SHARD])
        assert contents(path) == FILES | {SHARD: damaged}
        assert [each.reason for each in repaired.events if isinstance(each, Warned)] == ["DigestMismatch"]
        assert not list((fetch.cache_dir / ".fetcher/staging").iterdir())

    async def test_wrong_bytes_for_a_file_without_digest_are_found_by_its_chunks(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        address = origin.add_file("/model.bin", random_bytes("plain", 2 * MiB))
        path = (await fetch(address)).path
        damaged = damage(path / "model.bin", 5)
        origin.faults.add(Fault(FlipBit(7), origin="cdn"))
        report = await repaired(address)
        assert (report.repaired, [bad[0] for bad in report.bad]) == ((), ["model.bin"])
        assert contents(path) == {"model.bin": damaged}

    async def test_credentials_in_the_uri_must_be_given_again(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        weights = random_bytes("signed", 2 * MiB)
        address = origin.add_file("/model.bin", weights) + "?signature=secret"
        path = (await fetch(address)).path
        damage(path / "model.bin", 5)
        with pytest.raises(UsageError, match="credentials") as caught:
            await repaired(str(path))
        assert "secret" not in caught.value.message
        assert (await repaired(address, uri=address)).ok
        assert contents(path) == {"model.bin": weights}

    async def test_a_pin_of_the_user_is_compared_again(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        weights = random_bytes("pinned", 2 * MiB)
        address = origin.add_file("/model.bin", weights) + f"#sha256={sha256(weights).hexdigest()}"
        path = (await fetch(address)).path
        damage(path / "model.bin", 5)
        assert (await repaired(address)).ok


class TestOthers:
    async def test_a_lease_of_another_process_is_waited_for(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damaged = damage(path / SHARD, 5)
        lease = acquire(fetch.cache_dir / ".fetcher/staging", path.name, stale=60.0)
        assert lease is not None
        try:
            with pytest.raises(LeaseTimeout):
                await repaired(lease_wait=0.1)
        finally:
            lease.dissolve()
        assert (path / SHARD).read_bytes() == damaged

    async def test_a_fetch_waits_for_the_repair_and_uses_its_result(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        (path / SHARD).unlink()  # so that it is no hit
        origin.clear_requests()
        report, artifact = await asyncio.gather(repaired(), fetch())
        assert contents(path) == FILES
        assert report.ok
        assert artifact.path == path
        assert sum(stop - start for start, stop in filter(None, weights_requested(origin))) <= 20 * MiB + 7

    async def test_two_repairs_fetch_a_chunk_once(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        damage(path / SHARD, 5)
        origin.clear_requests()
        reports = await asyncio.gather(repaired(), repaired())
        assert sorted(each.repaired for each in reports) == [(), (SHARD,)]
        assert all(each.ok for each in reports)
        assert weights_requested(origin) == [(0, CHUNK_SIZE)]

    async def test_an_artifact_that_was_removed_meanwhile_is_not_found(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        entry = repaired.entry("hf://org/model")
        damage(path / SHARD, 5)
        report = verify(entry, full=False, on_event=silent)
        (path / RELATIVE_PATH).unlink()
        with pytest.raises(NotFound, match="removed"):
            await repair(entry, report, Settings(cache_dir=fetch.cache_dir))

    async def test_an_interrupted_repair_is_continued(self, origin: Origin, fetch: Fetcher, repaired: Repairer) -> None:
        origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        (path / SHARD).unlink()
        origin.faults.add(Fault(Stall(after=17 * MiB), origin="cdn", times=1))
        origin.faults.add(Fault(Status(503), origin="cdn"))
        with pytest.raises(Transient):
            await repaired(retry_for=0.5, max_concurrency=1)
        origin.faults.clear()
        origin.clear_requests()
        assert (await repaired()).ok
        assert contents(path) == FILES
        assert sum(stop - start for start, stop in filter(None, weights_requested(origin))) < CHUNK_SIZE

    async def test_an_unfinished_newer_version_stays_resumable(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        path = (await fetch()).path
        newer = FILES | {"new.safetensors": random_bytes("new", 17 * MiB), "last.safetensors": random_bytes("last", MiB)}
        origin.update_repo(repository, newer)

        def stop(event: Event) -> None:
            if isinstance(event, FileVerified) and event.path == "new.safetensors":
                fetching.cancel()

        fetching = asyncio.ensure_future(fetch(refresh="on-change", listen=stop))
        with pytest.raises(asyncio.CancelledError):
            await fetching
        damage(path / SHARD, 5)
        assert (await repaired()).ok
        assert contents(path) == FILES
        origin.clear_requests()
        await fetch(refresh="on-change")
        assert contents(path) == newer
        assert sum(stop - start for start, stop in filter(None, weights_requested(origin))) <= MiB


class TestRoom:
    """In a bounded root a repair makes room like a fetch."""

    async def filled(self, origin: Origin, fetch: Fetcher, root: Path) -> tuple[Path, Path]:
        """Fetch an old model and a newer one, damage the newer one. Return their directories."""
        for name in ("org/old", "org/model"):
            origin.add_repo(name, {SHARD: random_bytes(name, 20 * MiB)})
        old, new = (await fetch("hf://org/old")).path, (await fetch()).path
        os.utime(root / ".fetcher/usage" / old.name, (1_600_000_000, 1_600_000_000))
        damage(new / SHARD, 5)
        return old, new

    async def test_the_least_recently_used_artifact_makes_room(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer, tmp_path: Path
    ) -> None:
        old, new = await self.filled(origin, fetch, tmp_path / "cache")
        init(tmp_path / "cache", CacheLimits(max_size=Amount(50 * MiB)))
        assert (await repaired()).ok
        assert not old.exists()
        assert contents(new) == {SHARD: random_bytes("org/model", 20 * MiB)}

    async def test_without_room_it_is_refused_and_nothing_is_lost(
        self, origin: Origin, fetch: Fetcher, repaired: Repairer, tmp_path: Path
    ) -> None:
        old, new = await self.filled(origin, fetch, tmp_path / "cache")
        init(tmp_path / "cache", CacheLimits(max_size=Amount(30 * MiB)))
        before = (new / SHARD).read_bytes()
        with pytest.raises(OutOfSpace, match="needed 20"):
            await repaired()
        assert old.exists()
        assert (new / SHARD).read_bytes() == before
