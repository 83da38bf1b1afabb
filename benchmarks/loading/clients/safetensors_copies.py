"""`safetensors.safe_open` with each tensor copied into private memory, as engines copy it into a parameter.

With `--prefetch`, threads read the files into the page cache in blocks of 16 MiB, as vLLM does on network filesystems. With
`--first`, only the first tensor is loaded: it is not copied, but every page is touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open

from benchmarks.loading.clients.tensors import content, shards
from benchmarks.loading.clients.timed import timed, touch

BLOCK = 16 * 1024 * 1024
THREADS = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outcome", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--prefetch", action="store_true")
    parser.add_argument("--first", action="store_true")
    arguments = parser.parse_args()
    load = prefetched if arguments.prefetch else views if arguments.first else copies
    timed(arguments.outcome, partial(load, shards(arguments.directory)), content, first_alone=arguments.first)


def copies(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, opened.get_tensor(name).clone()


def views(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                tensor = opened.get_tensor(name)
                touch(content(tensor))
                yield name, tensor


def prefetched(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    with ThreadPoolExecutor(THREADS) as pool:
        reading = [pool.submit(read_through, file) for file in files]
        yield from copies(files)
        for each in reading:
            each.result()


def read_through(file: str) -> None:
    with open(file, "rb") as opened:
        while opened.read(BLOCK):
            pass


if __name__ == "__main__":
    main()
