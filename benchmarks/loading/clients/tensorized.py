"""`tensorizer`, which has its own format: `--write` converts a checkpoint, otherwise the file is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from tensorizer import TensorDeserializer, TensorSerializer

from benchmarks.loading.clients.tensors import content, shards
from benchmarks.loading.clients.timed import timed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outcome", type=Path)
    parser.add_argument("source", type=Path, help="the file to load, or the checkpoint's directory")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--readers", type=int, help="threads; default: tensorizer's choice")
    arguments = parser.parse_args()
    if arguments.write:
        write(shards(arguments.source), arguments.write)
    else:
        timed(arguments.outcome, partial(tensors, str(arguments.source), arguments.readers), content)


def tensors(file: str, readers: int | None) -> Iterator[tuple[str, torch.Tensor]]:
    yield from TensorDeserializer(file, device="cpu", lazy_load=False, num_readers=readers).items()


def write(files: Sequence[str], target: Path) -> None:
    serializer = TensorSerializer(str(target))
    serializer.write_state_dict({name: tensor for file in files for name, tensor in load_file(file).items()})
    serializer.close()


if __name__ == "__main__":
    main()
