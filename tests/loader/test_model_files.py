"""`model_files` chooses the files to warm, and their order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fetcher.errors import NotFound
from loader.errors import FileReplaced, MalformedCheckpoint
from loader.residency.model_files import model_files
from tests.loader.making import gguf, shard

SHARD = shard({"a": bytes(10)})
OTHER = shard({"b": bytes(10)})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    files = {
        "model-00002-of-00002.safetensors": OTHER,
        "model-00001-of-00002.safetensors": SHARD,
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        ".hidden": b"x",
        "pytorch_model.bin": b"the same again",
        "model.gguf": gguf({"a": 10}),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "consolidated.00.pth").write_bytes(b"and again")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [os.path.basename(member.path) for member in model_files(list(map(str, paths)))]


OTHERS = ["config.json", "tokenizer.json"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_other_files_come_before_the_shards_and_other_weights_are_left_out(directory: Path) -> None:
    assert names([directory]) == OTHERS + SHARDS


def test_without_shards_all_files_are_taken_with_the_weights_last(directory: Path) -> None:
    for name in SHARDS:
        (directory / name).unlink()
    assert names([directory]) == [*OTHERS, "model.gguf", "pytorch_model.bin"]


def test_named_files_keep_their_order(directory: Path) -> None:
    assert names([directory / SHARDS[1], directory / "model.gguf", directory / SHARDS[0]]) == [
        SHARDS[1],
        "model.gguf",
        SHARDS[0],
    ]


def test_a_file_that_is_named_twice_is_taken_once(directory: Path) -> None:
    os.link(directory / SHARDS[0], directory / "link.bin")
    assert names([directory / SHARDS[1], directory, directory / "link.bin"]) == [SHARDS[1], *OTHERS, SHARDS[0]]


def test_links_of_a_hub_cache_are_followed_and_dangling_links_are_left_out(directory: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(directory / SHARDS[0])
    (snapshot / "config.json").symlink_to(directory / "config.json")
    (snapshot / "merges.txt").symlink_to(directory / "nothing")
    assert names([snapshot]) == ["config.json", "model.safetensors"]


def test_an_invalid_or_missing_checkpoint_is_refused(directory: Path) -> None:
    (directory / SHARDS[0]).write_bytes(b"\xff" * 100)
    with pytest.raises(MalformedCheckpoint, match="header length"):
        model_files([str(directory)])
    with pytest.raises(NotFound):
        model_files([str(directory / "nothing")])


def test_a_file_that_was_replaced_is_refused(directory: Path) -> None:
    member = model_files([str(directory / SHARDS[0])])[0]
    (directory / "new").write_bytes(SHARD)
    os.rename(directory / "new", directory / SHARDS[0])
    with pytest.raises(FileReplaced), member.opened():
        pass
