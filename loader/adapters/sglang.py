"""SGLang's `--load-format weightlift`, tested with version 0.5.23. `register` is an entry point of `sglang.srt.plugins`.

As with vLLM, the engine still decides which files a model needs and what happens to their tensors. We replace only the function
by which `_get_weights_iterator` reads safetensors. SGLang's load formats are an enumeration that can't be extended, so ours
needs two hooks. Only SGLang's plugin modules are imported before a model is loaded.
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
    """Register the load format. SGLang calls this in each of its processes."""
    add_load_format_choices([LOAD_FORMAT])
    HookRegistry.register(_VERIFY, verify_load_format, HookType.AROUND)
    HookRegistry.register(_GET_LOADER, get_model_loader, HookType.AROUND)


def verify_load_format(usual: Callable[..., None], load_config: Any) -> None:
    """Accept our load format, which SGLang would reject as unknown."""
    if load_config.load_format != LOAD_FORMAT:
        usual(load_config)


def get_model_loader(usual: Callable[..., Any], load_config: Any, model_config: Any = None) -> Any:
    """Return our loader for our format, unless this model needs a loader of SGLang that does more (such as quantizing)."""
    if load_config.load_format != LOAD_FORMAT:
        return usual(load_config, model_config)
    from loader.adapters.sglang_loader import instead_of

    return instead_of(usual, load_config, model_config)
