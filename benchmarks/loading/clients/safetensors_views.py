"""`safetensors.torch.load_file`: views of the mapped files with every page touched; with `--backend pread`, copies."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.loading.clients.tensors import content, shards
from benchmarks.loading.clients.timed import timed, touch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outcome", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--backend", choices=("mmap", "pread"), default="mmap")
    arguments = parser.parse_args()
    timed(arguments.outcome, partial(tensors, shards(arguments.directory), arguments.backend), content)


def tensors(files: Sequence[str], backend: str) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        for name, tensor in load_file(file, backend=backend).items():
            if backend == "mmap":
                touch(content(tensor))
            yield name, tensor


if __name__ == "__main__":
    main()
