"""The filesystem of a path, and the strategy that follows from it, with a reason."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import NotFound
from fetcher.host.memory import Bound
from fetcher.host.mounts import Mount, mount_of
from loader.filesystems import Filesystem, filesystem_of, is_network, layers, read_ahead_advice, read_ahead_kib
from loader.reading.strategy import Strategy, choose_strategy
from loader.residency.page_cache import Residency
from tests.host.machines import mounted
from tests.lab.availability import program
from tests.lab.filesystems import Kind, SmallFilesystem
from tests.lab.fixtures import MakeFilesystem
from tests.loader.conftest import MiB

pytestmark = pytest.mark.page_cache

GiB = 1024 * MiB
MakeMount = Callable[..., Path]


def test_the_layers_of_an_overlay_are_listed_upper_first() -> None:
    assert layers(mounted(96)) == ("/u", "/l,1", "/l:2")
    added = Mount(1, "0:1", "/", "/", "overlay", "overlay", ("ro", "lowerdir+=/a:b", "lowerdir+=/c", "datadir+=/d"))
    assert layers(added) == ("/a:b", "/c")
    assert layers(mounted(90)) == ()


class TestRealMounts:
    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
    def test_local_filesystems_are_recognized(self, small_filesystem: MakeFilesystem, kind: Kind) -> None:
        volume = small_filesystem(kind, size=320 * MiB)
        (volume.path / "model").touch()
        filesystem = filesystem_of(volume.path / "model")
        assert (filesystem.kind, filesystem.point, filesystem.network) == (kind, str(volume.path), False)
        assert filesystem.memory == (kind == "tmpfs")

    def test_a_mount_point_may_contain_spaces_and_backslashes(self, tmp_path: Path, mount: MakeMount) -> None:
        point = mount(tmp_path / "a \\040 b\tc", "-t", "tmpfs", "tmpfs")
        assert filesystem_of(point).point == str(point)

    def test_a_mount_on_top_of_another_hides_it(self, volume: SmallFilesystem, mount: MakeMount) -> None:
        inner = mount(volume.path / "inner", "-t", "tmpfs", "tmpfs")
        assert filesystem_of(inner).kind == "tmpfs"
        below = os.open(inner, os.O_RDONLY)
        mount(volume.path, "-t", "tmpfs", "tmpfs")
        try:
            (volume.path / "inner").mkdir()
            assert filesystem_of(volume.path / "inner").point == str(volume.path)  # although the list has a longer mount point
            assert filesystem_of(Path(f"/proc/self/fd/{below}")).point == str(inner)
        finally:
            os.close(below)

    def test_a_bind_mount_has_the_kind_of_its_source(self, volume: SmallFilesystem, tmp_path: Path, mount: MakeMount) -> None:
        (volume.path / "part").mkdir()
        bound = mount(tmp_path / "bound", "--bind", volume.path / "part")
        assert (filesystem_of(bound).kind, filesystem_of(bound).point) == ("ext4", str(bound))
        bind = mount_of(bound)
        assert bind is not None
        assert bind.root == "/part"

    def test_a_symlink_has_the_filesystem_of_its_target(self, volume: SmallFilesystem, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(volume.path)
        assert filesystem_of(tmp_path / "link").point == str(volume.path)

    def test_an_overlay_has_the_kinds_of_its_layers(self, volume: SmallFilesystem, tmp_path: Path, mount: MakeMount) -> None:
        lower = volume.path / "a,b:c"
        other = mount(tmp_path / "other", "-t", "tmpfs", "tmpfs")
        lower.mkdir()
        escaped = str(lower).replace(":", "\\:").replace(",", "\\,")
        merged = mount(tmp_path / "merged", "-t", "overlay", "-o", f"lowerdir={escaped}:{other}", "overlay")
        filesystem = filesystem_of(merged)
        assert (filesystem.kind, filesystem.below, filesystem.network) == ("overlay", ("ext4", "tmpfs"), False)

    def test_a_missing_path_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="nothing"):
            filesystem_of(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *[
            (kind, True)
            for kind in ("nfs", "nfs4", "lustre", "ceph", "9p", "virtiofs", "cifs", "fuse", "fuse.juicefs", "fuse.s3fs")
        ],
        *[(kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.mergerfs", "fusectl")],
    ],
)
def test_network_filesystems_are_recognized_by_kind(kind: str, network: bool) -> None:
    assert is_network(kind) == network


WARM = Residency(8 * GiB, 10 * GiB, "mincore")
ALMOST = Residency(10 * GiB - 4096, 10 * GiB, "mincore")
COLD = Residency(0, 10 * GiB, "mincore")
RESIDENT = Residency(10 * GiB, 10 * GiB, "mincore")
UNKNOWN = Residency(None, 10 * GiB, "unknown")
ROOM = Bound(20 * GiB, "machine: 20.0 GiB of 24.0 GiB available")
NARROW = Bound(4 * GiB, "cgroup /sys/fs/cgroup: limit 5.0 GiB, 1.0 GiB used")


class TestStrategy:
    @pytest.mark.parametrize(
        ("kind", "residency", "left", "strategy", "because"),
        [
            ("tmpfs", COLD, ROOM, "mmap", "tmpfs is memory: mapping reads and copies nothing"),
            ("ramfs", None, NARROW, "mmap", "ramfs is memory: mapping reads and copies nothing"),
            ("ext4", WARM, ROOM, "mmap", "80 % is in the page cache on ext4: mapping reads only the rest"),
            ("ext4", WARM, NARROW, "mmap", "80 % is in the page cache on ext4: mapping reads only the rest"),
            ("xfs", ALMOST, ROOM, "mmap", "99 % is in the page cache on xfs"),
            ("overlay", WARM, NARROW, "buffered", "80 % is in the page cache, which O_DIRECT would not use"),
            ("ext4", RESIDENT, NARROW, "mmap", "all of it is in the page cache on ext4"),
            ("btrfs", RESIDENT, ROOM, "mmap", "all of it is in the page cache on btrfs"),
            ("nfs4", RESIDENT, ROOM, "buffered", "100 % is in the page cache"),
            ("xfs", COLD, ROOM, "direct", "xfs is local, little is in the page cache"),
            ("xfs", UNKNOWN, None, "direct", "xfs is local, little is in the page cache"),
            ("xfs", COLD, NARROW, "direct", f"10.0 GiB are more than the page cache can hold ({NARROW.reason}): "),
            ("nfs4", COLD, NARROW, "buffered", "on NFS, O_DIRECT bypasses the client's cache"),
            ("nfs", UNKNOWN, None, "buffered", "on NFS, O_DIRECT bypasses the client's cache"),
            ("lustre", COLD, ROOM, "buffered", "on Lustre, page faults"),
            ("ceph", COLD, ROOM, "buffered", "on CephFS, page faults"),
            ("virtiofs", COLD, ROOM, "buffered", "on virtiofs, loading by page faults took 1597 s"),
            ("fuse.juicefs", COLD, NARROW, "buffered", "on FUSE, every page fault is a message"),
            ("fuseblk", COLD, ROOM, "buffered", "on FUSE, every page fault is a message"),
            ("9p", COLD, ROOM, "buffered", "on 9p, every page fault is a separate message"),
            ("overlay", COLD, NARROW, "buffered", "an overlay passes reads on"),
            ("btrfs", COLD, NARROW, "buffered", "btrfs verifies and decompresses"),
            ("zfs", COLD, ROOM, "buffered", "ZFS has its own cache"),
            ("bcachefs", COLD, NARROW, "buffered", "no faster way is known for bcachefs"),
        ],
    )
    def test_the_strategy_depends_on_filesystem_residency_and_memory(
        self, kind: str, residency: Residency | None, left: Bound | None, strategy: Strategy, because: str
    ) -> None:
        chosen, reason = choose_strategy(kind, residency, lambda: left, 10 * GiB)
        assert chosen == strategy
        assert reason.startswith(because)

    def test_files_that_other_processes_read_go_through_the_page_cache(self) -> None:
        assert choose_strategy("ext4", COLD, lambda: ROOM, GiB, reread=True)[0] == "buffered"
        assert choose_strategy("ext4", UNKNOWN, lambda: None, GiB, reread=True)[0] == "buffered"
        assert choose_strategy("ext4", COLD, lambda: NARROW, 10 * GiB, reread=True)[0] == "direct"

    @given(
        st.sampled_from(["nfs4", "lustre", "ceph", "virtiofs", "fuse.x", "9p", "ext4", "xfs", "zfs", "overlay", "what?"]),
        st.sampled_from([WARM, COLD, UNKNOWN, None]),
        st.sampled_from([ROOM, NARROW, None]),
        st.integers(0, 1 << 42),
        st.booleans(),
    )
    def test_network_filesystems_are_read_buffered_and_only_warm_files_are_mapped(
        self, kind: str, residency: Residency | None, left: Bound | None, size: int, reread: bool
    ) -> None:
        strategy, reason = choose_strategy(kind, residency, lambda: left, size, reread=reread)
        assert strategy == "buffered" or not is_network(kind)
        assert (strategy == "mmap") <= (residency is WARM)
        assert (strategy == "direct") <= (residency is not WARM)
        assert reason
        assert reason[-1] not in ".\n"


class TestReadAhead:
    NFS = Filesystem("nfs4", "/models", "10.0.0.5:/exports", "0:52")

    def set_to(self, root: Path, place: str, kib: int) -> None:
        (root / place).parent.mkdir(parents=True)
        (root / place).write_text(f"{kib}\n")

    def test_the_read_ahead_of_a_network_filesystem_is_found(self, tmp_path: Path) -> None:
        self.set_to(tmp_path, "class/bdi/0:52/read_ahead_kb", 128)
        assert read_ahead_kib("0:52", tmp_path) == 128

    def test_a_partition_has_the_read_ahead_of_its_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "devices/pci/nvme0n1"
        self.set_to(tmp_path, "devices/pci/nvme0n1/queue/read_ahead_kb", 4096)
        (disk / "nvme0n1p1").mkdir()
        (tmp_path / "dev/block").mkdir(parents=True)
        (tmp_path / "dev/block/259:1").symlink_to(disk / "nvme0n1p1")
        (tmp_path / "dev/block/259:0").symlink_to(disk)
        assert read_ahead_kib("259:1", tmp_path) == read_ahead_kib("259:0", tmp_path) == 4096

    def test_an_unknown_device_has_no_read_ahead(self, tmp_path: Path) -> None:
        assert read_ahead_kib("0:52", tmp_path) is None

    def test_the_read_ahead_of_a_real_disk_equals_that_of_blockdev(self, volume: SmallFilesystem) -> None:
        filesystem = filesystem_of(volume.path)
        command = [program("blockdev", package="util-linux"), "--getra", filesystem.source]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        assert read_ahead_kib(filesystem.device) == int(output.stdout) // 2  # blockdev counts in sectors

    def test_a_small_read_ahead_on_a_network_filesystem_gives_advice(self) -> None:
        advice = read_ahead_advice(self.NFS, 128)
        assert advice is not None
        assert "nfs4 at /models reads ahead only 128 KiB" in advice
        assert advice.endswith("echo 1024 > /sys/class/bdi/0:52/read_ahead_kb")

    @pytest.mark.parametrize("kib", [None, 1024, 15360])
    def test_a_sufficient_or_unknown_read_ahead_gives_no_advice(self, kib: int | None) -> None:
        assert read_ahead_advice(self.NFS, kib) is None

    def test_a_local_disk_gives_no_advice(self) -> None:
        assert read_ahead_advice(Filesystem("ext4", "/", "/dev/vda", "254:0"), 128) is None
