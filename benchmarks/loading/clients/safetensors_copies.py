"""`safetensors.safe_open`, each tensor copied into memory of its own, as engines copy it into a parameter.

With `--prefetch` as vLLM does on network filesystems: threads read the files by 16 MiB into the page cache meanwhile. With
`--first` only the first tensor, which is not copied but every page of it touched.
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
    given = parser.parse_args()
    load = prefetched if given.prefetch else views if given.first else copies
    timed(given.outcome, partial(load, shards(given.directory)), content, first_alone=given.first)


def copies(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                yield name, opened.get_tensor(name).clone()


def views(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
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
