"""Load with SGLang itself in our format, and print the results as JSON: `python -m tests.loader.adapters.in_sglang DIRECTORY`.

In a separate process, because SGLang changes its process. Its kernels need a GPU, so no model is built.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

# torchvision's operators need CUDA, and without their definitions it can't be imported.
_OPERATORS = (
    "nms qnms roi_align _roi_align_backward ps_roi_align _ps_roi_align_backward roi_pool _roi_pool_backward ps_roi_pool"
)
_TORCHVISION = torch.library.Library("torchvision", "DEF")
for _name in [*_OPERATORS.split(), "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward"]:
    _TORCHVISION.define(f"{_name}(Tensor x) -> Tensor")

from sglang.srt.plugins import load_plugins

load_plugins()

from sglang.srt.configs.load_config import LoadConfig
from sglang.srt.model_loader.loader import DefaultModelLoader, get_model_loader
from sglang.srt.runtime_context import publish
from sglang.srt.server_args import prepare_server_args

from fetcher.testing.origin import Origin
from tests.loader.adapters.tiny import alike, complaint, make_damaged, make_model


def loader_for(load_format: str, model: Any = None, **extra: Any) -> Any:
    return get_model_loader(LoadConfig(load_format=load_format, model_loader_extra_config=extra), model)


def weights(model: Path, load_format: str) -> dict[str, torch.Tensor]:
    """Return all tensors that a loader yields, without a model to choose from them."""
    return dict(loader_for(load_format)._get_weights_iterator(DefaultModelLoader.Source(str(model), None)))


def checks(directory: Path) -> Iterator[tuple[str, object]]:
    model = make_model(directory / "llama")
    words = ["--model-path", str(model), "--load-format", "weightlift", "--skip-tokenizer-init", "--device", "cpu"]
    arguments = prepare_server_args(words)
    yield "load_format", arguments.load_format
    publish(arguments, role="scheduler")
    ours = loader_for("weightlift", threads=2)
    yield "loader", type(ours).__module__
    yield "others", [name for made in ("auto", "dummy") for name in (made, type(loader_for(made)).__name__)]
    yield "quantized", type(loader_for("weightlift", SimpleNamespace(quantization="auto-round-int8"))).__name__
    yield "weights", alike(weights(model, "weightlift"), weights(model, "auto"))
    with Origin(lfs_threshold=1024) as origin:
        origin.add_repo("org/llama", {path.name: path.read_bytes() for path in model.iterdir()})
        os.environ |= {"HF_ENDPOINT": origin.endpoint, "FETCHER_CACHE_DIR": str(directory / "cache"), "HF_HUB_OFFLINE": "0"}
        words = ["--model-path", "hf://org/llama", "--load-format", "weightlift", "--skip-tokenizer-init", "--device", "cpu"]
        resolved = prepare_server_args(words)
        resolved.resolve_once()
        yield "served", resolved.served_model_name
        config = LoadConfig("weightlift", model_loader_extra_config=json.loads(resolved.model_loader_extra_config))
        streaming = get_model_loader(config, SimpleNamespace(model_path=resolved.model_path, quantization=None))
        source = DefaultModelLoader.Source(resolved.model_path, None)
        yield "streamed", alike(dict(streaming._get_weights_iterator(source)), weights(model, "auto"))
        yield "on disk", [path.name for path in (directory / "cache").rglob("*.safetensors")]
    yield "wrong", complaint(lambda: loader_for("weightlift", threads=0))
    damaged = make_damaged(directory / "damaged")
    yield "damaged", complaint(lambda: weights(damaged, "weightlift"))


if __name__ == "__main__":
    print(json.dumps(dict(checks(Path(sys.argv[1])))))
