"""`runai_model_streamer`: loads and keeps all tensors of all files. Its own variables select how it reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from runai_model_streamer import SafetensorsStreamer

from benchmarks.loading.clients.tensors import content, shards
from benchmarks.loading.clients.timed import timed


def main() -> None:
    outcome, directory = map(Path, sys.argv[1:])
    timed(outcome, partial(tensors, shards(directory)), content)


def tensors(files: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(list(files))
        yield from streamer.get_tensors()


if __name__ == "__main__":
    main()
