"""Workers of torch's DataLoader use weights that the parent opened, with every start method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.availability import require_package

require_package("torch", extra="torch")

from torch.utils.data import DataLoader, Dataset, IterableDataset

import loader
from loader.adapters.torch import load, tensors
from tests.loader.making import shard

NAMES = [f"layer.{number}" for number in range(8)]

pytestmark = pytest.mark.filterwarnings("error:This process .* is multi-threaded:DeprecationWarning")


class Layers(Dataset[float]):
    """The mean of each tensor, read in the worker."""

    def __init__(self, weights: loader.Weights) -> None:
        self._weights = weights

    def __len__(self) -> int:
        return len(NAMES)

    def __getitem__(self, number: int) -> float:
        name = NAMES[number]
        return float(load(self._weights, [name])[name].float().mean())


class Continued(IterableDataset[str]):
    """An iterator that the parent started."""

    def __init__(self, started: Iterator[tuple[str, Any]]) -> None:
        self._started = started

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._started)


@pytest.fixture
def weights(tmp_path: Path) -> loader.Weights:
    (tmp_path / "model.safetensors").write_bytes(shard({name: bytes([n]) * 4096 for n, name in enumerate(NAMES)}))
    return loader.open(tmp_path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_read_weights_that_the_parent_opened(weights: loader.Weights, method: str) -> None:
    assert len(dict(weights.tensors())) == len(NAMES)  # the parent reads as well
    batches = DataLoader(Layers(weights), batch_size=None, num_workers=2, multiprocessing_context=method)
    assert list(batches) == list(range(len(NAMES)))


def test_a_worker_that_continues_its_parents_iterator_gets_an_error_with_the_remedy(weights: loader.Weights) -> None:
    started = tensors(weights)
    next(started)
    batches = DataLoader(Continued(started), batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match="start another reading in the child"):
        list(batches)
    assert [name for name, _ in started] == NAMES[1:], "the parent continues"
