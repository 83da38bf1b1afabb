"""Load with vLLM itself in our format, and print the results as JSON.

Run as `python -m tests.loader.adapters.in_vllm DIRECTORY [RANK RANKS]`.

In a separate process, because vLLM changes its process. It runs on the CPU, without vLLM's compiled parts: models are built
and their weights loaded, nothing is computed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import vllm.platforms
from safetensors.torch import save_file
from torch import nn
from vllm.platforms.cpu import CpuPlatform

vllm.platforms._current_platform = CpuPlatform()  # no other way to set it, and most modules read it at import

from vllm.config import set_current_vllm_config
from vllm.distributed.parallel_state import init_distributed_environment, initialize_model_parallel
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model_loader
from vllm.utils.argparse_utils import FlexibleArgumentParser

from fetcher.testing.origin import Origin
from loader.adapters import vllm as adapter
from tests.loader.adapters.tiny import alike, complaint, make_damaged, make_model


def configured(model: Path | str, *words: str) -> EngineArgs:
    """Parse the arguments as `vllm serve` does."""
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    arguments = parser.parse_args(["--model", str(model), "--skip-tokenizer-init", "--enforce-eager", *words])
    return EngineArgs.from_cli_args(arguments)


def weights(model: Path, load_format: str, *, experts: set[int] | None = None) -> dict[str, torch.Tensor]:
    """Return all tensors that a loader yields, without a model to choose from them."""
    loader = get_model_loader(configured(model, "--load-format", load_format).create_load_config())
    loader.local_expert_ids = experts
    return dict(loader._get_weights_iterator(loader.Source(str(model), None)))


def load(config: Any) -> nn.Module:
    """Build vLLM's model and load its weights."""
    with set_current_vllm_config(config):
        loader = get_model_loader(config.load_config)
        model = loader.create_model(config, config.model_config)
        loader.load_weights(model, config.model_config)
        return model


def of_rank(directory: Path, model: Path, ours: EngineArgs, rank: int, ranks: int) -> Iterator[tuple[str, object]]:
    """Check vLLM's model, of which each of `ranks` processes holds a part of each tensor."""
    config = ours.create_engine_config()
    yield "loader", type(get_model_loader(config.load_config)).__module__
    init_distributed_environment(ranks, rank, f"file://{directory}/store", rank, "gloo")
    with set_current_vllm_config(config):
        initialize_model_parallel(ranks, 1)
    theirs = load(configured(model, "--tensor-parallel-size", str(ranks)).create_engine_config())
    yield "model", alike(dict(load(config).named_parameters()), dict(theirs.named_parameters()))
    yield "host", adapter._host()


def checks_of_rank(directory: Path, rank: int, ranks: int) -> Iterator[tuple[str, object]]:
    """The checks of one of several processes."""
    model = make_model(directory / f"llama-{rank}")
    words = ["--tensor-parallel-size", str(ranks), "--model-loader-extra-config", '{"strategy": "buffered"}']
    yield from of_rank(directory, model, configured(model, "--load-format", "weightlift", *words), rank, ranks)


def checks(directory: Path) -> Iterator[tuple[str, object]]:
    """The checks of a single process."""
    model = make_model(directory / "llama")
    ours = configured(model, "--load-format", "weightlift", "--model-loader-extra-config", '{"strategy": "direct"}')
    yield "load_format", ours.load_format
    yield from of_rank(directory, model, ours, 0, 1)
    yield "weights", alike(weights(model, "weightlift"), weights(model, "auto"))

    mixed = directory / "mixed"
    shutil.copytree(model, mixed)
    save_file({"norm.weight": torch.ones(8)}, mixed / "consolidated.safetensors")
    yield "mistral", [sorted(weights(mixed, name)) for name in ("weightlift", "auto")]

    with Origin(lfs_threshold=1024) as origin:
        origin.add_repo("org/llama", {path.name: path.read_bytes() for path in model.iterdir()})
        os.environ |= {"HF_ENDPOINT": origin.endpoint, "FETCHER_CACHE_DIR": str(directory / "cache"), "HF_HUB_OFFLINE": "0"}
        huggingface_hub.constants.HF_HUB_OFFLINE = False  # read when it was imported
        config = configured("hf://org/llama", "--load-format", "weightlift").create_engine_config()
        theirs = load(configured(model).create_engine_config())
        yield "streamed", alike(dict(load(config).named_parameters()), dict(theirs.named_parameters()))
        yield "served", config.model_config.served_model_name
        bodies = [each.path for each in origin.requests if each.origin == "cdn"]
        yield "on disk", [path.name for path in (directory / "cache").rglob("*.safetensors")]
        yield "bodies", len(bodies) > 4

    experts = directory / "experts"
    experts.mkdir()
    save_file({f"mlp.experts.{number}.up.weight": torch.ones(8) for number in range(4)}, experts / "model.safetensors")
    yield "experts", [sorted(weights(experts, name, experts={1, 3})) for name in ("weightlift", "auto")]

    pickled = directory / "pickled"
    pickled.mkdir()
    torch.save({"norm.weight": torch.ones(8)}, pickled / "pytorch_model.bin")
    yield "pickled", sorted(weights(pickled, "weightlift"))
    wrong = configured(model, "--load-format", "weightlift", "--model-loader-extra-config", '{"threads": 0}')
    yield "wrong", complaint(lambda: get_model_loader(wrong.create_load_config()))
    damaged = make_damaged(directory / "damaged")
    yield "damaged", complaint(lambda: weights(damaged, "weightlift"))


if __name__ == "__main__":
    place, *numbers = sys.argv[1:]
    results = checks_of_rank(Path(place), *map(int, numbers)) if numbers else checks(Path(place))
    print(json.dumps(dict(results)))
