"""`loader.open`: all tensors together, one after another, or only the first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.loading.clients.timed import timed, touch
from loader.tensors.arrays import Array, Raw
from loader.tensors.weights import open_weights


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("outcome", type=Path)
    parser.add_argument("source")
    parser.add_argument("--strategy", choices=("auto", "buffered", "direct", "mmap"), default="auto")
    parser.add_argument("--take", choices=("all", "streamed", "first"), default="all")
    arguments = parser.parse_args()
    load = partial(tensors, arguments.source, arguments.strategy, at_once=arguments.take == "all")
    timed(arguments.outcome, load, content, keep=arguments.take == "all", first_alone=arguments.take == "first")


def tensors(source: str, strategy: str, *, at_once: bool) -> Iterator[tuple[str, Array]]:
    weights = open_weights(source, strategy=strategy)  # type: ignore[arg-type]  # one of the choices
    for name, array in weights.load().items() if at_once else weights.tensors():
        if weights.way.strategy == "mmap":
            touch(content(array))
        yield name, array


def content(array: Array) -> memoryview:
    return (array.data if isinstance(array, Raw) else array).data.cast("B")


if __name__ == "__main__":
    main()
