"""The model loader behind `loader.adapters.sglang`: a separate module, because importing it imports most of SGLang."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from sglang.srt.configs.load_config import LoadConfig, LoadFormat
from sglang.srt.distributed.parallel_state import get_world_group, model_parallel_is_initialized
from sglang.srt.model_loader import loader
from sglang.srt.runtime_context import get_server_args

from loader.adapters.engine import Host, Settings, read_tensors

_usual = loader.safetensors_weights_iterator
_logger = logging.getLogger(__name__)


def instead_of(usual: Callable[..., Any], load_config: LoadConfig, model_config: Any) -> Any:
    """Return the loader for this model. `usual`: SGLang's `get_model_loader`. Raises ConfigurationError for wrong settings."""
    settings = Settings.read(load_config.model_loader_extra_config)
    # Without multiple threads SGLang reads through `safetensors_weights_iterator`, the function that we replace.
    plain = replace(load_config, load_format=LoadFormat.AUTO, model_loader_extra_config={"enable_multithread_load": False})
    sglangs_own = usual(plain, model_config)
    if type(sglangs_own) is not loader.DefaultModelLoader:
        _logger.warning("this model needs SGLang's own %s, which reads its weights itself", type(sglangs_own).__name__)
        return sglangs_own
    return WeightliftModelLoader(plain, settings, getattr(model_config, "model_path", None))


class WeightliftModelLoader(loader.DefaultModelLoader):
    """`--model-loader-extra-config` takes the fields of `loader.adapters.engine.Settings`.

    `directory`: that of the model whose weights come from `settings.source`, if there is one.
    """

    def __init__(self, load_config: LoadConfig, settings: Settings, directory: str | None) -> None:
        super().__init__(load_config)
        self._settings = settings
        self._directory = directory

    def download_model(self, model_config: Any) -> None:
        """Nothing for weights that are streamed; otherwise as SGLang does."""
        if self._settings.source is None:
            super().download_model(model_config)

    def _get_weights_iterator(self, source: Any, *others: Any, **named: Any) -> Iterator[tuple[str, torch.Tensor]]:
        if self._settings.source is not None and source.model_or_path == self._directory:
            return _read(self._settings, ())
        with _reading_by(partial(_read, replace(self._settings, source=None))):
            return super()._get_weights_iterator(source, *others, **named)


@contextmanager
def _reading_by(read: Any) -> Iterator[None]:
    """Replace SGLang's function meanwhile. Safe, because a process loads one model at a time, in one thread."""
    loader.safetensors_weights_iterator = read
    try:
        yield
    finally:
        loader.safetensors_weights_iterator = _usual


def _read(settings: Settings, files: Sequence[str], **_: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Replaces SGLang's `safetensors_weights_iterator`, whose other arguments only concern mapping and prefetching."""
    return read_tensors(files, settings, _host(), log=_logger.info)


def _host() -> Host:
    """SGLang numbers the processes of a host consecutively, including pipeline stages."""
    if not model_parallel_is_initialized():
        return Host()
    world = get_world_group()
    ranks = max(1, world.world_size // get_server_args().nnodes)
    return Host(world.rank_in_group % ranks, ranks)
