"""A Git LFS pointer instead of a file is never a silent success. Incomplete sets are reported."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fetcher.artifact import Digest
from fetcher.errors import LfsPointer
from fetcher.events import BytesReceived, Planned, Warned
from fetcher.planning.sets import SplitSet, incomplete_sets
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"1" * 64 + b"\nsize 5000000000\n"
DIGEST = Digest("sha256", hashlib.sha256(POINTER).hexdigest())


@pytest.fixture(params=["http", "file", "a directory", "pvc", "hard link"])
def pointer(request: pytest.FixtureRequest, origin: Origin, tmp_path: Path) -> tuple[str, dict[str, object]]:
    """A URI whose `model.safetensors` is a pointer, and the options it needs."""
    path = tmp_path / "claim" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(POINTER)
    options: dict[str, tuple[str, dict[str, object]]] = {
        "http": (origin.add_file("/model.safetensors", POINTER), {}),
        "file": (path.as_uri(), {}),
        "a directory": (str(path.parent), {}),
        "pvc": ("pvc://claim", {"pvc_mounts": {"claim": path.parent}}),
        "hard link": (str(path.parent), {"hard_link": True}),
    }
    return options[request.param]


async def test_a_pointer_is_refused_by_name(fetch: Fetcher, pointer: tuple[str, dict[str, object]]) -> None:
    uri, options = pointer
    with pytest.raises(LfsPointer, match=r"model\.safetensors is a Git LFS pointer.*git lfs pull") as caught:
        await fetch(uri, **options)
    assert (caught.value.path, caught.value.exit_code, fetch.visible()) == ("model.safetensors", 65, [])


async def test_a_pointer_in_a_local_directory_is_refused_before_anything_is_copied(fetch: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "a.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "clone" / "b.safetensors").write_bytes(POINTER)
    with pytest.raises(LfsPointer, match=r"b\.safetensors"):
        await fetch(str(tmp_path / "clone"))
    assert not [event for event in fetch.events if isinstance(event, Planned | BytesReceived)]


async def test_a_pinned_pointer_is_fetched(fetch: Fetcher, pointer: tuple[str, dict[str, object]]) -> None:
    uri, options = pointer
    artifact = await fetch(uri, expect={"model.safetensors": DIGEST}, **options)
    assert contents(artifact.path) == {"model.safetensors": POINTER}


async def test_the_real_file_is_fetched_afterwards(fetch: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(POINTER)
    with pytest.raises(LfsPointer):
        await fetch(str(path))
    path.write_bytes(b"weights")
    artifact = await fetch(str(path))
    assert contents(artifact.path) == {"model.bin": b"weights"}


@pytest.mark.parametrize("content", [POINTER + b"#" * 1024, b"\n" + POINTER, b"version 1\n", b""])
async def test_a_file_that_resembles_a_pointer_is_fetched(fetch: Fetcher, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    artifact = await fetch(str(path))
    assert contents(artifact.path) == {"notes.txt": content}


class TestSets:
    @pytest.mark.parametrize(
        ("paths", "found"),
        [
            (["m-00001-of-00003.gguf"], (SplitSet("m-00001-of-00003.gguf", 1, 3),)),
            (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], (SplitSet("m-00001-of-00003.gguf", 2, 3),)),
            (["Q4/m-00001-of-00002.gguf", "Q8/m-00002-of-00002.gguf"],
             (SplitSet("Q4/m-00001-of-00002.gguf", 1, 2), SplitSet("Q8/m-00002-of-00002.gguf", 1, 2))),
            (["m-00001-of-00002.fp16.safetensors", "m-00002-of-00002.safetensors"],
             (SplitSet("m-00001-of-00002.fp16.safetensors", 1, 2), SplitSet("m-00002-of-00002.safetensors", 1, 2))),
            (["m.Q8_0.gguf.part1of2"], (SplitSet("m.Q8_0.gguf.part1of2", 1, 2),)),
            (["m.gguf.part1of2", "m.gguf.part2of2"], ()),
            (["m-00001-of-00002.bin", "m-00002-of-00002.bin"], ()),
            (["m-00000-of-00002.bin", "m-00001-of-00002.bin"], ()),
            (["m-00001-of-00001.bin", "one-of-them.bin", "2-of-2", "x/README.md"], ()),
        ],
    )  # fmt: skip
    def test_incomplete_sets_are_found(self, paths: list[str], found: tuple[SplitSet, ...]) -> None:
        assert incomplete_sets(paths) == found

    async def test_a_single_part_is_a_warning(self, origin: Origin, fetch: Fetcher) -> None:
        await fetch(origin.add_file("/m-00001-of-00003.gguf", b"GGUF"))
        messages = [event.message for event in fetch.events if isinstance(event, Warned)]
        assert messages == ["m-00001-of-00003.gguf is one of 3 parts, but the selection contains only 1"]

    async def test_a_selection_without_a_part_is_a_warning(self, origin: Origin, fetch: Fetcher) -> None:
        origin.add_repo("org/model", {f"m-{number:05}-of-00002.gguf": b"GGUF" for number in (1, 2)})
        await fetch(include=("*00002-of*",))
        assert [event.reason for event in fetch.events if isinstance(event, Warned)] == ["IncompleteSet"]
        fetch.events.clear()
        await fetch()
        assert not [event for event in fetch.events if isinstance(event, Warned)]
