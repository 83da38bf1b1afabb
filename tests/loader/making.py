"""Build safetensors and GGUF files from parts, valid or not: the package's own writer cannot write invalid files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import deserialize


def content(header: str | bytes | Mapping[str, Any], data: bytes = b"", *, length: int | None = None) -> bytes:
    """A whole file; `length` overrides the length of the header, to make it wrong."""
    if isinstance(header, Mapping):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode("utf-8", "surrogatepass")
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def shard(tensors: Mapping[str, bytes], metadata: Mapping[str, str] | None = None) -> bytes:
    """A valid file with these tensors of dtype U8."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name, data in tensors.items():
        header[name] = entry("U8", [len(data)], position, position + len(data))
        position += len(data)
    return content(header, b"".join(tensors.values()))


def write_index(path: Path, weight_map: object, **others: object) -> Path:
    path.write_text(json.dumps({"weight_map": weight_map, **others}))
    return path


def read_by_the_package(whole: bytes) -> dict[str, dict[str, Any]]:
    """Return name → dtype, shape and data, as the safetensors package reads them. Raises SafetensorError."""
    return dict(deserialize(whole))  # type: ignore[no-untyped-call]


def gguf(sizes: Mapping[str, int], *, version: int = 3, order: str = "<", pairs: bytes = b"", pair_count: int = 0) -> bytes:
    """A GGUF file with tensors of I8, one after the other, aligned to 32 bytes."""

    def string(text: str) -> bytes:
        return struct.pack(f"{order}Q", len(text)) + text.encode()

    infos, offset = b"", 0
    for name, size in sizes.items():
        infos += string(name) + struct.pack(f"{order}IQIQ", 1, size, 24, offset)
        offset += -(-size // 32) * 32
    header = b"GGUF" + struct.pack(f"{order}IQQ", version, len(sizes), pair_count) + pairs + infos
    return header + bytes(-len(header) % 32) + bytes(offset)


def gguf_part(number: int, count: int, *, kind: int = 2, order: str = "<") -> bytes:
    """Part `number`, from 1, of `count`; the header has them as integers of type `kind` (u16, as in gguf-split, by default)."""
    form = {2: "H", 4: "I", 5: "i", 10: "Q"}[kind]

    def pair(key: str, value: int) -> bytes:
        return struct.pack(f"{order}Q", len(key)) + key.encode() + struct.pack(f"{order}I{form}", kind, value)

    return gguf({"a": 100 * number}, order=order, pairs=pair("split.no", number - 1) + pair("split.count", count), pair_count=2)
