"""SGLang's `--load-format weightlift`, tested with version 0.5.23. `register` is an entry point of `sglang.srt.plugins`.

As with vLLM, the engine still decides which files a model needs and what happens to their tensors. We replace only the function
by which `_get_weights_iterator` reads safetensors. SGLang's load formats are an enumeration that can't be extended, so ours
needs two hooks. A third one serves addresses (`--model-path s3://bucket/model --load-format weightlift`): SGLang gets a
directory with the other files, and the weights come from the source without a disk. Only SGLang's plugin modules are imported
before a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sglang.srt.arg_groups.choices import add_load_format_choices
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from loader.adapters.engine import LOAD_FORMAT, model_at
from loader.addresses import is_remote

_VERIFY = "sglang.srt.configs.load_config.LoadConfig._verify_load_format"
_GET_LOADER = "sglang.srt.model_loader.loader.get_model_loader"
_RESOLVE = "sglang.srt.server_args.ServerArgs.resolve_once"


def register() -> None:
    """Register the load format. SGLang calls this in each of its processes."""
    add_load_format_choices([LOAD_FORMAT])
    HookRegistry.register(_VERIFY, verify_load_format, HookType.AROUND)
    HookRegistry.register(_GET_LOADER, get_model_loader, HookType.AROUND)
    HookRegistry.register(_RESOLVE, resolve_once, HookType.AROUND)


def resolve_once(usual: Callable[..., None], arguments: Any) -> None:
    """Replace the address of a model by a directory before SGLang looks for its files."""
    uri = arguments.model_path
    if arguments.load_format == LOAD_FORMAT and is_remote(uri):
        settings = json.loads(arguments.model_loader_extra_config or "{}")
        model = model_at(uri, arguments.revision, settings)
        arguments.served_model_name = arguments.served_model_name or uri
        if arguments.tokenizer_path in (None, uri):
            arguments.tokenizer_path = model.directory
        arguments.model_path, arguments.revision = model.directory, None
        arguments.model_loader_extra_config = json.dumps(model.settings)
    usual(arguments)


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
