"""A real model of a few layers, and comparing what two loaders made of it. Imported where an engine is, and so transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
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
