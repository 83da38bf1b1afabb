"""A real model of a few layers, and comparing what two loaders made of it. Imported where an engine is, and so transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM


def make_model(directory: Path) -> Path:
    """Three layers in four shards, of BF16."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 512, "num_hidden_layers": 3}
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, **sizes)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="100KB")
    return directory


def alike(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> int:
    """How many tensors there are, to the bit the same. Raises AssertionError."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    return len(theirs)


def make_damaged(directory: Path) -> Path:
    """A file that ends too early, which this project's reader says in its own words."""
    directory.mkdir()
    save_file({"norm.weight": torch.ones(8)}, directory / "model.safetensors")
    with open(directory / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    return directory


def complaint(about: Callable[[], object]) -> str:
    """What an engine says then."""
    try:
        about()
    except Exception as error:  # noqa: BLE001 - which one is what is told
        return f"{type(error).__name__}: {error}"
    return "nothing is wrong"
