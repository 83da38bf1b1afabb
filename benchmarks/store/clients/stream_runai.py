"""Stream all tensors of a checkpoint at an address by Run:ai's streamer, as engines call it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch  # noqa: F401  the streamer imports it: that belongs to no load
from runai_model_streamer import SafetensorsStreamer, list_safetensors

from benchmarks.store.clients.timed import timed


def sizes() -> Iterator[int]:
    files = list_safetensors(sys.argv[1])
    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files)
        for _, tensor in streamer.get_tensors():
            yield tensor.numel() * tensor.element_size()


timed(sizes)
