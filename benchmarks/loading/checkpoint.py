"""The loaded checkpoints: random BF16 tensors of realistic sizes, with the digest of each tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import xxhash

from benchmarks.measuring import Failed, MiB
from fetcher.artifact import CHUNK_SIZE, ArtifactRef, ByteRange
from fetcher.integrity.frontier import chunk_digest
from fetcher.manifest import RELATIVE_PATH, Manifest, ManifestFile
from fetcher.testing.checkpoint import header, random_pieces

LAYERS = 22
"""Layers of one shard. With 9 tensors each, an embedding and a norm, a shard has 200 tensors."""
QUARTERS = {
    "input_layernorm": 0,
    "mlp.down_proj": 11,
    "mlp.gate_proj": 11,
    "mlp.up_proj": 11,
    "post_attention_layernorm": 0,
    "self_attn.k_proj": 1,
    "self_attn.o_proj": 4,
    "self_attn.q_proj": 4,
    "self_attn.v_proj": 1,
}
"""Sizes in quarters of a square matrix, as with grouped queries; 0 is a vector. A quarter is 1 MiB in a shard of 1 GiB."""
PARTS = 1008
"""Quarters in a shard: 946 in its layers; the other 6 % are the embedding."""
WIDTH = 2
"""Bytes of a BF16 element."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A written checkpoint. `digests`: XXH3-128 of each tensor, by name. `size`: bytes of all tensors."""

    directory: Path
    files: tuple[Path, ...]
    digests: Mapping[str, str]
    size: int

    def arrived(self, copy: Path) -> str | None:
        """Return None if `copy` has every file, bit for bit, else the first difference."""
        manifest = Manifest.read(self.directory / RELATIVE_PATH)
        for file in manifest.files if manifest else ():
            try:
                descriptor = os.open(copy / file.path, os.O_RDONLY)
            except OSError as error:
                return f"{file.path}: {error.strerror}"
            try:
                if chunks(descriptor) != file.chunks:
                    return f"{file.path} differs"
            finally:
                os.close(descriptor)
        return None


def make(directory: Path, *, shards: int, size: int) -> Checkpoint:
    """Write `shards` files with 200 tensors of `size` bytes each, and their manifest. Files are synced."""
    return _make(directory, [_tensors(number, size) for number in range(shards)])


def joined(checkpoint: Checkpoint, directory: Path, *, shards: int, size: int) -> Checkpoint:
    """Write the tensors of `checkpoint` to one file. Raises Failed."""
    shapes = {name: shape for number in range(shards) for name, shape in _tensors(number, size).items()}
    one = _make(directory, [dict(sorted(shapes.items()))])
    if one.digests != checkpoint.digests:
        raise Failed("the tensors of the single file differ from those of the shards")
    return one


def chunks(descriptor: int) -> tuple[str, ...]:
    """Return the digests of a whole file, as in a manifest."""
    size = os.fstat(descriptor).st_size
    parts = [ByteRange(start, min(start + CHUNK_SIZE, size)) for start in range(0, size, CHUNK_SIZE)]
    return tuple(chunk_digest(descriptor, part) or "" for part in parts)


def _tensors(number: int, size: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a shard of `size` bytes, in the order in which safetensors writes them."""
    columns = 4096 if size >= 64 * MiB else 64
    rows = size // (WIDTH * columns)
    quarter = rows // PARTS
    shapes: dict[str, tuple[int, ...]] = {f"model.norm.{number}.weight": (columns,)}
    for layer in range(number * LAYERS, (number + 1) * LAYERS):
        for part, quarters in QUARTERS.items():
            shapes[f"model.layers.{layer}.{part}.weight"] = (quarters * quarter, columns) if quarters else (columns,)
    used = sum(map(math.prod, shapes.values())) // columns
    shapes[f"model.embed.{number}.weight"] = (rows - used, columns)
    return dict(sorted(shapes.items()))


def _make(directory: Path, shards: Sequence[Mapping[str, tuple[int, ...]]]) -> Checkpoint:
    directory.mkdir(parents=True)
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    files = tuple(directory / name for name in names)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = list(pool.map(_written, files, shards))
    digests = {name: digest for shard in written for name, digest in shard.items()}
    size = sum(math.prod(shape) * WIDTH for shapes in shards for shape in shapes.values())
    placed = {tensor: name for name, shapes in zip(names, shards, strict=True) for tensor in shapes}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": placed}))
    _vouch(directory, [*files, index])
    return Checkpoint(directory, files, digests, size)


def _written(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Write a file and return the digest of each tensor."""
    digests = {}
    with path.open("wb", buffering=0) as file:
        file.write(header(shapes, "BF16"))
        for name, shape in shapes.items():
            hasher = xxhash.xxh3_128()
            for piece in random_pieces(name, math.prod(shape) * WIDTH):
                file.write(piece)
                hasher.update(piece)
            digests[name] = hasher.hexdigest()
        os.fsync(file.fileno())
    return digests


def _vouch(directory: Path, files: Sequence[Path]) -> None:
    listed = tuple(_listed(directory, files))
    ref = ArtifactRef("file:///benchmark")
    manifest = Manifest.for_request(ref, revision=None, files=listed, created="", version="")
    path = directory / RELATIVE_PATH
    path.parent.mkdir()
    path.write_bytes(manifest.to_bytes())


def _listed(directory: Path, files: Sequence[Path]) -> Iterator[ManifestFile]:
    for file in files:
        with file.open("rb") as opened:
            yield ManifestFile(str(file.relative_to(directory)), file.stat().st_size, (), chunks(opened.fileno()))
