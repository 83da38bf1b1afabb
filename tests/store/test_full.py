"""A filesystem without a free byte or inode: eviction begins all the same, and the fetch that needs the room succeeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from tests.lab.command import run_fetcher
from tests.lab.filesystems import SMALLEST, Kind, MiB
from tests.lab.fixtures import MakeFilesystem

LONG_AGO = 1_600_000_000.0


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_a_fetch_evicts_on_a_full_filesystem(kind: Kind, small_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    filesystem = small_filesystem(kind, size=max(SMALLEST[kind], 64 * MiB))
    root = filesystem.path / "cache"
    old, new = tmp_path / "old", tmp_path / "new"
    for model, size in ((old, 12 * MiB), (new, 8 * MiB)):
        model.mkdir()
        (model / "model.bin").write_bytes(os.urandom(size))
    assert run_fetcher("init", root, "--min-free", "0").returncode == 0
    assert run_fetcher("fetch", old, "--cache-dir", root).returncode == 0
    os.utime(root / ".fetcher/usage" / ArtifactRef(str(old)).key, (LONG_AGO, LONG_AGO))
    filesystem.fill(leave=0)
    done = run_fetcher("fetch", new, "--cache-dir", root)
    assert done.returncode == 0, done.stderr
    assert not (root / ArtifactRef(str(old)).key).exists()
    assert run_fetcher("verify", "--cache-dir", root).returncode == 0


def test_a_fetch_evicts_on_a_filesystem_without_inodes(small_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    filesystem = small_filesystem("tmpfs", size=64 * MiB, inodes=60)
    root = filesystem.path / "cache"
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.bin").write_bytes(os.urandom(MiB))
    assert run_fetcher("init", root, "--min-free", "0").returncode == 0
    assert run_fetcher("fetch", model, "--cache-dir", root).returncode == 0
    number = 0
    try:
        while True:
            (filesystem.path / f"file-{number}").touch()
            number += 1
    except OSError:
        pass
    done = run_fetcher("rm", ArtifactRef(str(model)).key, "--cache-dir", root)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in root.iterdir()] == [".fetcher"]
