"""A real model of a few layers, and a comparison of two loaders' tensors. Needs transformers, which comes with an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM


def make_model(directory: Path) -> Path:
    """Make a model of three layers in four shards of BF16."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 512, "num_hidden_layers": 3}
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, **sizes)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="100KB")
    return directory


def alike(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> int:
    """Return the number of tensors. Raises AssertionError unless they are equal to the bit."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    return len(theirs)


def make_damaged(directory: Path) -> Path:
    """Make a file that ends too early: our reader has its own message for that."""
    directory.mkdir()
    save_file({"norm.weight": torch.ones(8)}, directory / "model.safetensors")
    with open(directory / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    return directory


def complaint(about: Callable[[], object]) -> str:
    """Return the error that `about` raises, as text."""
    try:
        about()
    except Exception as error:  # noqa: BLE001 - any error is reported
        return f"{type(error).__name__}: {error}"
    return "no error"
