"""The common part of the engines' adapters: settings, order, and reading storage once for all processes of a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.lab.availability import require_package

require_package("torch", extra="torch")

import torch

from fetcher.errors import ConfigurationError
from loader.adapters.engine import LOAD_FORMAT, Host, Settings, read_tensors, sharing
from loader.checkpoint.index import read_checkpoint
from loader.reading.reader import WINDOW
from loader.residency.page_cache import measure
from loader.residency.windows import Window, share, width_for, windows
from tests.lab.waiting import wait_until
from tests.loader.adapters.test_torch import assert_alike, by_the_package, write
from tests.loader.conftest import MiB, cool, opened

pytestmark = [pytest.mark.page_cache, pytest.mark.usefixtures("nothing_left_behind")]


def checkpoint(directory: Path, shards: int, tensors: int, elements: int) -> Path:
    """A cold checkpoint on disk, with shards named as engines expect."""
    directory.mkdir()
    for number in range(1, shards + 1):
        names = [f"layers.{number}.{tensor:03}" for tensor in range(tensors)]
        path = write(
            directory / f"model-{number:05}-of-{shards:05}.safetensors", [(name, "BF16", (elements,)) for name in names]
        )
        with opened(path) as descriptor:
            os.fsync(descriptor)
    cool(directory)
    return directory


def files(directory: Path) -> list[str]:
    return sorted(map(str, directory.glob("*.safetensors")))


@pytest.fixture
def model(public: Path) -> Path:
    return checkpoint(public / "model", shards=2, tensors=8, elements=MiB)


class TestSettings:
    def test_every_setting_is_optional(self) -> None:
        assert Settings.read({}) == Settings("auto", None, WINDOW)

    def test_strategy_threads_and_window_can_be_set(self) -> None:
        read = Settings.read({"strategy": "direct", "threads": 8, "window": "1Gi"})
        assert read == Settings("direct", 8, 1 << 30)
        assert Settings.read({"window": 4096}).window == 4096

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"num_threads": 8}, "weightlift has no setting 'num_threads'; use one of strategy, threads, window"),
            ({"strategy": "fast"}, "no strategy 'fast'; use one of auto, buffered, direct, mmap"),
            ({"threads": 0}, "a number from 1 to 256, not 0"),
            ({"threads": True}, "a number from 1 to 256, not True"),
            ({"window": "much"}, "'much' is not a size"),
            ({"window": 0}, "a size above zero, such as 1Gi, not 0"),
            ({"window": 1.5}, "not 1.5"),
            ("direct", "must be an object, not 'direct'"),
        ],
    )
    def test_a_wrong_setting_is_an_error_that_names_it(self, config: object, words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings.read(config)
        assert words in str(caught.value)


class TestReading:
    def test_every_tensor_equals_that_of_the_safetensors_package(self, model: Path) -> None:
        messages: list[str] = []
        read = dict(read_tensors(files(model), Settings(), Host(), log=messages.append))
        assert_alike(read, dict(chain.from_iterable(by_the_package(Path(path)).items() for path in files(model))))
        assert messages[0].startswith("reading 16 tensors (32.0 MiB) of 2 files, ")

    def test_files_are_read_in_numeric_order(self, tmp_path: Path) -> None:
        for number in (10, 9, 1):
            write(tmp_path / f"part-{number}.safetensors", [(str(number), "U8", (1,))])
        assert [name for name, _ in read_tensors(files(tmp_path), Settings(), Host(), log=print)] == ["1", "9", "10"]

    def test_unwanted_tensors_are_not_read(self, model: Path) -> None:
        read = read_tensors(files(model), Settings(), Host(0, 2), log=print, wanted=lambda name: name == "layers.2.003")
        assert [name for name, _ in read] == ["layers.2.003"]
        with opened(Path(files(model)[0])) as descriptor:
            assert (measure(descriptor).fraction or 0) < 0.1

    def test_an_abandoned_reading_leaves_no_thread_and_no_descriptor(self, model: Path) -> None:
        read = read_tensors(files(model), Settings("buffered"), Host(0, 2), log=print)
        next(read)
        del read  # the fixture `nothing_left_behind` checks the rest


class TestSeveralOnAHost:
    """Ranks of tensor parallelism: each needs every tensor."""

    def test_each_rank_reads_its_part_ahead_before_it_takes_a_tensor(self, model: Path) -> None:
        found = read_checkpoint(files(model))
        plan = tuple(windows([shard.size for shard in found.shards], width=width_for(found.size, 2)))
        part = share(plan, rank=1, ranks=2)

        def is_resident(window: Window) -> bool:
            with opened(Path(found.shards[window.number].path)) as descriptor:
                return measure(descriptor, window.part).complete

        assert not any(map(is_resident, part))
        with sharing(found, Host(1, 2), threads=2):
            wait_until(lambda: all(map(is_resident, part)), "its part is in memory")

    def test_three_ranks_together_read_storage_once(self, model: Path) -> None:
        """Ranks find in the page cache what another rank read, unless they need it at the same moment. That only adds reading,
        so one of a few runs must show it. Without sharing, every run would read three times as much."""
        amount = sum(os.stat(path).st_size for path in files(model))
        read: list[int] = []
        while len(read) < 5 and (not read or read[-1] >= 1.2 * amount):
            cool(model)
            results = _read_by_three(model)
            assert [result["tensors"] for result in results] == [16] * 3
            assert len({result["sum"] for result in results}) == 1
            read.append(sum(result["read_bytes"] for result in results))
            assert read[-1] >= amount
        assert read[-1] < 1.2 * amount, read


def _read_by_three(model: Path) -> list[dict[str, Any]]:
    """Start three processes together, and return the result of each."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.loader.adapters.rank", str(rank), "3", *files(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        for process in ranks:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return [json.loads(process.communicate("go\n")[0]) for process in _started(ranks)]
    finally:
        for process in ranks:
            process.kill()
            process.wait()


def _started(ranks: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in ranks:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return ranks


class TestRegistration:
    @pytest.mark.parametrize(
        ("group", "module"),
        [("vllm.general_plugins", "loader.adapters.vllm"), ("sglang.srt.plugins", "loader.adapters.sglang")],
    )
    def test_the_package_registers_its_format_with_the_engine(self, group: str, module: str) -> None:
        (found,) = entry_points(group=group, name=LOAD_FORMAT)
        assert (found.module, found.attr) == (module, "register")
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        assert "\ndef register() -> None:" in Path(spec.origin).read_text()

    def test_the_loader_and_the_fetcher_import_neither_torch_nor_an_engine(self) -> None:
        program = (
            "import sys, loader.tensors.weights, loader.cli, fetcher; print({'torch', 'vllm', 'sglang'} & set(sys.modules))"
        )
        assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_kept_tensor_is_not_overwritten_by_later_ones(model: Path) -> None:
    first = next(iter(by_the_package(Path(files(model)[0])).items()))
    reading = read_tensors(files(model), Settings("buffered", window=4 * MiB), Host(), log=print)
    name, kept = next(reading)
    for _ in reading:
        pass
    assert name == first[0]
    assert torch.equal(kept.view(torch.uint8), first[1].view(torch.uint8))
