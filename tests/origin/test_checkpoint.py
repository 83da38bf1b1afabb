"""Generated weights are valid and deterministic."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from safetensors import safe_open

from fetcher.testing.checkpoint import Dtype, make_checkpoint, random_bytes


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_the_safetensors_package_finds_every_tensor_of_the_index(tmp_path: Path, dtype: Dtype) -> None:
    make_checkpoint(tmp_path, shards=3, shard_size=200_000, dtype=dtype)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    size = 0
    for name, shard in index["weight_map"].items():
        with safe_open(tmp_path / shard, framework="numpy") as opened:
            part = opened.get_slice(name)
            assert part.get_dtype() == dtype
            size += part.get_shape()[0] * part.get_shape()[1] * {"BF16": 2, "F32": 4}[dtype]
    assert size == index["metadata"]["total_size"]
    assert len(set(index["weight_map"].values())) == 3


def test_equal_seeds_generate_equal_files_and_other_seeds_do_not(tmp_path: Path) -> None:
    def content(directory: str, seed: int) -> bytes:
        made = make_checkpoint(tmp_path / directory, shards=1, shard_size=100_000, seed=seed)
        return (made / "model-00001-of-00001.safetensors").read_bytes()

    assert content("one", 1) == content("again", 1) != content("two", 2)


def test_random_bytes_have_the_requested_size_and_do_not_repeat() -> None:
    assert [len(random_bytes(0, size)) for size in (0, 1, 1 << 20, (1 << 20) + 1, 5_000_001)] == [
        0, 1, 1 << 20, (1 << 20) + 1, 5_000_001,
    ]  # fmt: skip
    data = random_bytes(0, 3 << 20)
    pieces = {data[start : start + 4096] for start in range(0, len(data), 1 << 20)}
    assert len(pieces) == 3
    assert len(zlib.compress(data[: 1 << 18])) > 0.99 * (1 << 18)
