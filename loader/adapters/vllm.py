"""vLLM's `--load-format weightlift`, for version 0.33 (tested: 0.33.0). `register` is a `vllm.general_plugins`.

vLLM goes on deciding which files a model needs, which of their tensors a rank leaves out, and what becomes of those that were
read; even which of Mistral's two sets of files counts. Only the reading of safetensors is ours: `_get_weights_iterator` calls
one function for it, by its name in `default_loader`, and finds `_read` there. To write that method anew would be to leave out,
silently, whatever step another version adds to it. Files that are no safetensors, and torchao's, vLLM reads itself.
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
_logger = init_logger(f"vllm.{__name__}")  # below `vllm`, for only those vLLM shows


def register() -> None:
    """Called by vLLM in each of its processes."""
    register_model_loader(LOAD_FORMAT)(WeightliftModelLoader)


class WeightliftModelLoader(DefaultModelLoader):
    """`--model-loader-extra-config` takes `strategy`, `threads` and `window`."""

    def __init__(self, load_config: LoadConfig) -> None:
        """Raises ConfigurationError for settings that there are not."""
        self._settings = Settings.read(load_config.model_loader_extra_config)
        super().__init__(replace(load_config, load_format="auto", model_loader_extra_config={}))

    def _get_weights_iterator(self, source: DefaultModelLoader.Source) -> Iterator[tuple[str, torch.Tensor]]:
        with _reading_by(partial(_read, self._settings)):
            return super()._get_weights_iterator(source)


@contextmanager
def _reading_by(read: Any) -> Iterator[None]:
    """A process loads one model at a time, in one thread."""
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
    """In place of vLLM's `safetensors_weights_iterator`, whose arguments these are."""
    if safetensors_load_strategy == "torchao":
        return _usual(files, use_tqdm_on_load, safetensors_load_strategy, local_expert_ids, **others)
    wanted = None if local_expert_ids is None else partial(_is_local, local_expert_ids)
    return read_tensors(files, settings, _host(), log=_logger.info, wanted=wanted)


def _is_local(local_expert_ids: set[int], name: str) -> bool:
    return not should_skip_weight(name, local_expert_ids)


def _host() -> Host:
    """vLLM's local rank counts within a host, over replicas of the model (data parallelism) too."""
    if not model_parallel_is_initialized():
        return Host()
    ranks = max(1, get_world_group().world_size // get_node_count())
    return Host(get_world_group().local_rank % ranks, ranks)
