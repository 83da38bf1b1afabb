"""Shared by clients with torch: the files of a checkpoint, and the bytes of a tensor of any dtype."""

from __future__ import annotations

from pathlib import Path

import torch


def shards(directory: Path) -> list[str]:
    return sorted(map(str, directory.glob("*.safetensors")))


def content(tensor: torch.Tensor) -> memoryview:
    data: memoryview = tensor.contiguous().view(torch.uint8).numpy().data.cast("B")
    return data
