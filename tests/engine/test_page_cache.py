"""The page cache after a fetch: everything if a warm start follows, nothing if memory is scarce."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents
from tests.lab.fixtures import MakeFilesystem

pytestmark = pytest.mark.page_cache

MiB = 1024 * 1024
FILES = {"model-1.safetensors": random_bytes("one", 20 * MiB), "model-2.safetensors": random_bytes("two", 17 * MiB)}


def resident(path: Path) -> float:
    """Return the fraction of the pages of a file in the page cache, by mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE) as view,
    ):
        pages = (len(view) + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        resident = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(view)
        assert libc.mincore(ctypes.byref(start), ctypes.c_size_t(len(view)), resident) == 0
        del start
    return sum(page & 1 for page in resident) / pages


@pytest.mark.parametrize(("asked", "share"), [("keep", 1.0), ("drop", 0.0)])
@pytest.mark.parametrize("digests", [True, False], ids=["hashed", "without a digest"])
async def test_pages_are_kept_or_dropped_as_requested(
    origin: Origin, fetch: Fetcher, small_filesystem: MakeFilesystem, *, asked: str, share: float, digests: bool
) -> None:
    volume = small_filesystem("ext4", size=112 * MiB)
    uri = "hf://org/model"
    files = FILES
    if digests:
        origin.add_repo("org/model", FILES)
    else:
        files = {"model-1.safetensors": FILES["model-1.safetensors"]}
        uri = origin.add_file("/model-1.safetensors", FILES["model-1.safetensors"])
    artifact = await fetch(uri, cache_dir=volume.path / "cache", page_cache=asked)
    assert [resident(artifact.path / path) for path in files] == [share] * len(files)
    assert contents(artifact.path) == files
