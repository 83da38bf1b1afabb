"""vLLM's `--load-format weightlift`, for version 0.33 (tested: 0.33.0). `register` is an entry point of
`vllm.general_plugins`.

With `vllm serve s3://bucket/model --load-format weightlift`, and addresses of the other schemes, the weights come from the
source without a disk. vLLM gets a directory with the other files, and its rule that such models need Run:ai's loader does not
apply. What follows is about models in directories.

vLLM still decides which files a model needs (also between Mistral's two sets), which tensors a rank skips, and what happens to
the others. We replace only the function by which `_get_weights_iterator` reads safetensors, under its name in `default_loader`.
A copy of that method would silently miss a step that another version adds. vLLM itself reads other formats and torchao's files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import torch
from vllm.config.load import LoadConfig
from vllm.distributed.parallel_state import get_node_count, get_world_group, model_parallel_is_initialized
from vllm.engine.arg_utils import EngineArgs
from vllm.logger import init_logger
from vllm.model_executor.model_loader import DefaultModelLoader, default_loader, register_model_loader
from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

from loader.adapters.engine import LOAD_FORMAT, Host, Settings, model_at, read_tensors
from loader.addresses import is_remote

_usual = default_loader.safetensors_weights_iterator
_logger = init_logger(f"vllm.{__name__}")  # below `vllm`, because vLLM shows only its own loggers


def register() -> None:
    """Register the load format. vLLM calls this in each of its processes, perhaps several times."""
    register_model_loader(LOAD_FORMAT)(WeightliftModelLoader)
    for name in ("create_engine_config", "create_model_config"):
        usual = getattr(EngineArgs, name)
        if not hasattr(usual, "__wrapped__"):
            setattr(EngineArgs, name, _with_directory(usual))


def _with_directory(usual: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of EngineArgs that replaces the address of a model by a directory first."""

    @wraps(usual)
    def configured(arguments: EngineArgs, *words: Any, **named: Any) -> Any:
        if arguments.load_format == LOAD_FORMAT and is_remote(arguments.model):
            uri = arguments.model
            model = model_at(uri, arguments.revision, arguments.model_loader_extra_config)
            arguments.served_model_name = arguments.served_model_name or uri
            arguments.tokenizer = model.directory if arguments.tokenizer in (None, uri) else arguments.tokenizer
            arguments.model, arguments.revision = model.directory, None
            arguments.model_loader_extra_config = model.settings
        return usual(arguments, *words, **named)

    return configured


class WeightliftModelLoader(DefaultModelLoader):
    """`--model-loader-extra-config` takes the fields of `loader.adapters.engine.Settings`."""

    def __init__(self, load_config: LoadConfig) -> None:
        """Raises ConfigurationError for invalid settings."""
        self._settings = Settings.read(load_config.model_loader_extra_config)
        super().__init__(replace(load_config, load_format="auto", model_loader_extra_config={}))

    def download_model(self, model_config: Any) -> None:
        """Nothing for weights that are streamed; otherwise as vLLM does."""
        if self._settings.source is None:
            super().download_model(model_config)

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield all weights of the model: those of its own address streamed, those of other sources as vLLM does."""
        if self._settings.source is None:
            yield from super().get_all_weights(model_config, model)
            return
        self.counter_before_loading_weights: float = time.perf_counter()
        yield from _read(self._settings, (), use_tqdm_on_load=False, local_expert_ids=self.local_expert_ids)
        for source in getattr(model, "secondary_weights", ()):
            yield from self._get_weights_iterator(source)

    def _get_weights_iterator(self, source: DefaultModelLoader.Source) -> Iterator[tuple[str, torch.Tensor]]:
        with _reading_by(partial(_read, replace(self._settings, source=None))):
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
