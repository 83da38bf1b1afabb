"""Generate model weights: deterministic, valid for the `safetensors` package, never whole in memory.

::

    config.json  generation_config.json  tokenizer.json  tokenizer_config.json
    model-00001-of-00004.safetensors ...  model.safetensors.index.json
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

MiB = 1024 * 1024

_POOL = 4 * MiB
"""Bytes drawn from the random generator for each file. Drawing every byte of a checkpoint takes seconds a gigabyte."""

_ROW = 4096
"""Elements of a tensor's row."""

Dtype = Literal["BF16", "F32"]


def random_pieces(seed: int | str, size: int) -> Iterator[bytes]:
    """Yield `size` bytes determined by `seed`, in distinct, incompressible pieces of 1 MiB."""
    chance = random.Random(f"pool {seed}")  # noqa: S311 - weights, not secrets
    pool = chance.randbytes(min(_POOL, size + 64))
    for number, start in enumerate(range(0, size, MiB)):
        mark = hashlib.sha256(f"{seed} {number}".encode()).digest()
        length = min(MiB, size - start)
        offset = int.from_bytes(mark[:4], "big") % max(1, len(pool) - MiB)
        piece = mark + pool[offset : offset + length]
        yield piece[:length]


def random_bytes(seed: int | str, size: int) -> bytes:
    """Return `size` bytes determined by `seed`."""
    return b"".join(random_pieces(seed, size))


def make_checkpoint(
    directory: Path, *, shards: int = 4, shard_size: int = 64 * MiB, dtype: Dtype = "BF16", seed: int | str = 0
) -> Path:
    """Write a sharded checkpoint into `directory` and return the directory. A shard has about `shard_size` bytes of tensors.

    Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights: dict[str, str] = {}
    total = 0
    for number in range(1, shards + 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        tensors = _tensors(number, shard_size, dtype)
        _write_shard(directory / name, tensors, dtype, seed=f"{seed} {name}")
        weights |= dict.fromkeys(tensors, name)
        total += sum(rows * _ROW * _width(dtype) for rows in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weights}
    _write_json(directory / "model.safetensors.index.json", index)
    for name, value in _small_files(dtype).items():
        _write_json(directory / name, value)
    return directory


def _width(dtype: Dtype) -> int:
    return {"BF16": 2, "F32": 4}[dtype]


def _tensors(shard: int, size: int, dtype: Dtype) -> dict[str, int]:
    """Return the names and rows of a shard's tensors: three weights of one layer, about `size` bytes together."""
    rows = max(3, size // (_ROW * _width(dtype)))
    third = rows // 3
    names = ("mlp.down_proj", "mlp.up_proj", "self_attn.o_proj")
    return {f"model.layers.{shard - 1}.{name}.weight": third for name in names[1:]} | {
        f"model.layers.{shard - 1}.{names[0]}.weight": rows - 2 * third
    }


def _write_shard(path: Path, tensors: dict[str, int], dtype: Dtype, *, seed: str) -> None:
    shapes = {name: (rows, _ROW) for name, rows in tensors.items()}
    with path.open("wb") as file:
        file.write(header(shapes, dtype))
        for piece in random_pieces(seed, sum(rows * _ROW * _width(dtype) for rows in tensors.values())):
            file.write(piece)


def header(shapes: Mapping[str, Sequence[int]], dtype: Dtype) -> bytes:
    """Return the header of a safetensors file: the length in 8 bytes, little endian, and JSON padded to 8 bytes.

    The tensors follow in the same order, without gaps.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        stop = offset + math.prod(shape) * _width(dtype)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _small_files(dtype: Dtype) -> dict[str, object]:
    vocabulary = {f"token{number}": number for number in range(500)}
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": _ROW,
            "torch_dtype": {"BF16": "bfloat16", "F32": "float32"}[dtype],
        },
        "generation_config.json": {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
        "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": vocabulary, "merges": []}},
        "tokenizer_config.json": {"model_max_length": 8192, "tokenizer_class": "PreTrainedTokenizerFast"},
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
