"""vLLM's `--load-format weightlift`, for version 0.33 (tested: 0.33.0). `register` is an entry point of
`vllm.general_plugins`.

vLLM still decides which files a model needs (also between Mistral's two sets), which tensors a rank skips, and what happens to
the others. We replace only the function by which `_get_weights_iterator` reads safetensors, under its name in `default_loader`.
A copy of that method would silently miss a step that another version adds. vLLM itself reads other formats and torchao's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from vllm.config.load import LoadConfig
from vllm.distributed.parallel_state import get_node_count, get_world_group, model_parallel_is_initialized
from vllm.logger import init_logger
from vllm.model_executor.model_loader import DefaultModelLoader, default_loader, register_model_loader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from loader.adapters.engine import LOAD_FORMAT, Host, Settings, read_tensors

_usual = default_loader.safetensors_weights_iterator
_logger = init_logger(f"vllm.{__name__}")  # below `vllm`, because vLLM shows only its own loggers


def register() -> None:
    """Register the load format. vLLM calls this in each of its processes."""
    register_model_loader(LOAD_FORMAT)(WeightliftModelLoader)


class WeightliftModelLoader(DefaultModelLoader):
    """`--model-loader-extra-config` takes `strategy`, `threads` and `window`."""

    def __init__(self, load_config: LoadConfig) -> None:
        """Raises ConfigurationError for invalid settings."""
        self._settings = Settings.read(load_config.model_loader_extra_config)
        super().__init__(replace(load_config, load_format="auto", model_loader_extra_config={}))

    def _get_weights_iterator(self, source: DefaultModelLoader.Source) -> Iterator[tuple[str, torch.Tensor]]:
        with _reading_by(partial(_read, self._settings)):
            return super()._get_weights_iterator(source)


@contextmanager
def _reading_by(read: Any) -> Iterator[None]:
    """Replace vLLM's function meanwhile. Safe, because a process loads one model at a time, in one thread."""
    default_loader.safetensors_weights_iterator = read
    try:
        yield
    finally:
        default_loader.safetensors_weights_iterator = _usual


def _read(
    settings: Settings,
    files: Sequence[str],
    use_tqdm_on_load: bool,
    safetensors_load_strategy: str | None = None,
    local_expert_ids: set[int] | None = None,
    **others: Any,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Replaces vLLM's `safetensors_weights_iterator`, with the same arguments."""
    if safetensors_load_strategy == "torchao":
        return _usual(files, use_tqdm_on_load, safetensors_load_strategy, local_expert_ids, **others)
    wanted = None if local_expert_ids is None else partial(_is_local, local_expert_ids)
    return read_tensors(files, settings, _host(), log=_logger.info, wanted=wanted)


def _is_local(local_expert_ids: set[int], name: str) -> bool:
    return not should_skip_weight(name, local_expert_ids)


def _host() -> Host:
    """vLLM's local rank counts all processes of a host, including replicas of the model (data parallelism)."""
    if not model_parallel_is_initialized():
        return Host()
    ranks = max(1, get_world_group().world_size // get_node_count())
    return Host(get_world_group().local_rank % ranks, ranks)
