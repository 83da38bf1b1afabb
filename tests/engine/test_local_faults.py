"""A full, read-only or broken disk: the right error, nothing published, and a later run that finishes."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.engine.artifact_check import verify
from fetcher.errors import CannotWrite, LocalIOError, OutOfSpace, StoreError, TooManyOpenFiles
from fetcher.events import Retrying, silent
from fetcher.store.catalog import find
from fetcher.testing.origin import Origin
from tests.engine.conftest import FILES, Fetcher, MiB, contents
from tests.lab.faultfs import Rule
from tests.lab.faults import FaultFilesystem
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

KEY = ArtifactRef("hf://org/model").key


class TestNoSpace:
    @pytest.mark.parametrize("kind", ["tmpfs", "ext4", "xfs", "btrfs"])
    async def test_missing_space_is_reported_before_the_first_byte(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem, kind: str
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem(kind, size=(300 if kind == "xfs" else 112) * MiB)  # type: ignore[arg-type]
        volume.fill(leave=10 * MiB)
        with pytest.raises(OutOfSpace, match="bytes free") as caught:
            await fetch(cache_dir=volume.path / "cache")
        assert caught.value.exit_code == 73
        assert not [request for request in origin.requests if request.origin == "cdn"]

    async def test_missing_inodes_are_missing_space(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem("tmpfs", size=100 * MiB, inodes=14)
        with pytest.raises(OutOfSpace):
            await fetch(cache_dir=volume.path / "cache")

    async def test_another_writer_cannot_use_reserved_space(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem("ext4", size=112 * MiB)
        origin.throttle(total=20 * MiB)
        fetching = asyncio.create_task(fetch(cache_dir=volume.path / "cache"))
        await asyncio.to_thread(wait_until, lambda: any(each.origin == "cdn" for each in origin.requests), "a first byte")
        await asyncio.to_thread(volume.fill, leave=2 * MiB)
        origin.throttle()
        assert contents((await fetching).path) == FILES

    async def test_a_fetch_is_resumable_after_the_disk_fills_up(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule("write", match=".safetensors", error=errno.ENOSPC, after=17 * MiB))
        with pytest.raises(OutOfSpace, match="no space left on device"):
            await fetch(cache_dir=faulty.path / "cache", max_concurrency=1)
        assert not (faulty.path / "cache" / KEY).exists()
        faulty.obey()
        artifact = await fetch(cache_dir=faulty.path / "cache")
        assert contents(artifact.path) == FILES
        assert artifact.bytes_fetched < artifact.bytes


class TestBrokenDisks:
    async def test_a_read_only_target_is_reported(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem("ext4", size=64 * MiB)
        volume.remount_read_only()
        with pytest.raises(CannotWrite, match="read-only") as caught:
            await fetch(cache_dir=volume.path / "cache")
        assert caught.value.exit_code == 73

    @pytest.mark.parametrize("operation", ["write", "read"])
    async def test_an_io_error_is_reported_and_the_next_run_finishes(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem, operation: str
    ) -> None:
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule(operation, match=".safetensors", error=errno.EIO, after=MiB))  # type: ignore[arg-type]
        with pytest.raises(LocalIOError, match="safetensors") as caught:
            await fetch(cache_dir=faulty.path / "cache")
        assert (caught.value.exit_code, caught.value.retryable) == (74, True)
        assert not (faulty.path / "cache" / KEY).exists()
        faulty.obey()
        assert contents((await fetch(cache_dir=faulty.path / "cache")).path) == FILES

    @pytest.mark.parametrize("operation", ["write", "read"])
    @pytest.mark.parametrize(
        "code", [errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ESTALE, errno.EAGAIN]
    )
    async def test_a_disk_error_that_resembles_a_network_error_is_not_retried(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem, operation: str, code: int
    ) -> None:
        """A soft NFS mount returns ETIMEDOUT, a dead FUSE daemon ENOTCONN. Python raises TimeoutError for some of them."""
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule(operation, match=".safetensors", error=code, after=MiB))  # type: ignore[arg-type]
        with pytest.raises(LocalIOError, match="the staged file") as caught:
            await fetch(cache_dir=faulty.path / "cache")
        assert caught.value.exit_code == 74
        assert os.strerror(code).lower() in caught.value.message
        assert not [event for event in fetch.events if isinstance(event, Retrying)]

    @pytest.mark.parametrize(
        ("code", "error", "sentence", "exit_code"),
        [
            (errno.EMFILE, TooManyOpenFiles, "raise the limit with ulimit -n", 78),
            (errno.ENFILE, LocalIOError, "raise fs.file-max", 74),
            (errno.EPERM, CannotWrite, "fsGroup", 73),
            (errno.EDQUOT, OutOfSpace, "no space left on device", 73),
        ],
    )
    async def test_each_errno_has_its_message(
        self,
        origin: Origin,
        fetch: Fetcher,
        faulty: FaultFilesystem,
        code: int,
        error: type[StoreError],
        sentence: str,
        exit_code: int,
    ) -> None:
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule("create", match="model-00001", error=code))
        with pytest.raises(error, match=sentence) as caught:
            await fetch(cache_dir=faulty.path / "cache")
        assert caught.value.exit_code == exit_code
        assert "disk" not in caught.value.message

    async def test_after_a_failed_sync_the_file_is_fetched_again(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule("fsync", match="model-00002", error=errno.EIO, times=1))
        artifact = await fetch(cache_dir=faulty.path / "cache")
        assert contents(artifact.path) == FILES
        assert artifact.bytes_fetched == artifact.bytes + len(FILES["model-00002-of-00002.safetensors"])
        assert [event.reason for event in fetch.events if isinstance(event, Retrying)] == ["IOError"]

    async def test_a_sync_that_always_fails_is_an_io_error(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        faulty.obey(Rule("fsync", match="model-00002", error=errno.EIO))
        with pytest.raises(LocalIOError):
            await fetch(cache_dir=faulty.path / "cache")
        assert not (faulty.path / "cache" / KEY).exists()

    async def test_a_refresh_works_without_exchange_and_reservation(
        self, origin: Origin, fetch: Fetcher, faulty: FaultFilesystem
    ) -> None:
        repository = origin.add_repo("org/model", FILES)
        await fetch(cache_dir=faulty.path / "cache")
        origin.update_repo(repository, FILES | {"config.json": b"{}"})
        artifact = await fetch(cache_dir=faulty.path / "cache", refresh="on-change")
        assert contents(artifact.path) == FILES | {"config.json": b"{}"}


class TestPowerLoss:
    @pytest.mark.parametrize("step", ["sealing", "sealed", "renamed", None])
    async def test_a_visible_artifact_is_complete_after_power_loss_and_the_next_run_finishes(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem, step: str | None
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem("xfs", size=300 * MiB)
        root = volume.path / "cache"

        def lose(name: str) -> None:
            if name == step:
                volume.shut_down()

        try:
            await fetch(cache_dir=root, step=lose)
        except (LocalIOError, OSError):
            assert step is not None
            volume.unmount()
            volume.mount()
        else:
            volume.lose_power()
        if (root / KEY).exists():
            assert verify(find(root, KEY), full=True, on_event=silent).ok
        else:
            assert step is not None, "what was published is gone"
        assert contents((await fetch(cache_dir=root)).path) == FILES

    async def test_the_next_run_finishes_after_power_loss_during_the_transfer(
        self, origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem
    ) -> None:
        origin.add_repo("org/model", FILES)
        volume = small_filesystem("xfs", size=300 * MiB)
        root: Path = volume.path / "cache"
        origin.throttle(total=20 * MiB)
        fetching = asyncio.create_task(fetch(cache_dir=root))
        await asyncio.to_thread(wait_until, lambda: any(b"part" in p.read_bytes() for p in root.rglob("journal.*")), "data")
        await asyncio.to_thread(volume.shut_down)
        with pytest.raises(LocalIOError):
            await fetching
        await asyncio.to_thread(volume.unmount)
        await asyncio.to_thread(volume.mount)
        origin.throttle()
        artifact = await fetch(cache_dir=root)
        assert contents(artifact.path) == FILES
        assert verify(find(root, KEY), full=True, on_event=silent).ok
