"""SGLang's `--load-format weightlift`, for version 0.5.23, with which it is tested. `register` is a `sglang.srt.plugins`.

As with vLLM, the engine goes on deciding which files a model needs and what becomes of their tensors; `_get_weights_iterator`
finds our reading where its own was, by its name in `loader`. SGLang knows its load formats as an enumeration that can't be
extended, so two hooks let ours past it. Nothing of SGLang but its plugins is imported before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sglang.srt.arg_groups.choices import add_load_format_choices
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from loader.adapters.engine import LOAD_FORMAT

_VERIFY = "sglang.srt.configs.load_config.LoadConfig._verify_load_format"
_GET_LOADER = "sglang.srt.model_loader.loader.get_model_loader"


def register() -> None:
    """Called by SGLang in each of its processes."""
    add_load_format_choices([LOAD_FORMAT])
    HookRegistry.register(_VERIFY, verify_load_format, HookType.AROUND)
    HookRegistry.register(_GET_LOADER, get_model_loader, HookType.AROUND)


def verify_load_format(usual: Callable[..., None], load_config: Any) -> None:
    """Ours stays the word it is."""
    if load_config.load_format != LOAD_FORMAT:
        usual(load_config)


def get_model_loader(usual: Callable[..., Any], load_config: Any, model_config: Any = None) -> Any:
    """Ours for our format, unless SGLang has one that does more than loading for this model (quantizing it first)."""
    if load_config.load_format != LOAD_FORMAT:
        return usual(load_config, model_config)
    from loader.adapters.sglang_loader import instead_of

    return instead_of(usual, load_config, model_config)
