"""`fastsafetensors` into main memory. Its own variable selects direct I/O."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from fastsafetensors import SafeTensorsFileLoader, SingleGroup

from benchmarks.loading.clients.tensors import content, shards
from benchmarks.loading.clients.timed import timed


def main() -> None:
    outcome, directory = map(Path, sys.argv[1:])
    timed(outcome, partial(tensors, shards(directory)), content)


def tensors(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
    loader.add_filenames({0: list(files)})
    buffers = loader.copy_files_to_device()
    for name in list(buffers.key_to_rank_lidx):
        yield name, buffers.get_tensor(name)


if __name__ == "__main__":
    main()
