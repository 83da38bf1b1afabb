"""vLLM and SGLang themselves, with our load format. They are too heavy for every environment: `make engines` has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def told_by(engine: str, directory: Path, *numbers: int) -> dict[str, Any]:
    """What a process with this engine has to tell. Skips where the engine is not installed."""
    if find_spec(engine) is None:
        pytest.skip(f"{engine} is not in this environment; `make engines` makes one that has it")
    done = subprocess.run(
        [sys.executable, "-m", f"tests.loader.adapters.in_{engine}", str(directory), *map(str, numbers)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return told_by("vllm", tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def sglang(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return told_by("sglang", tmp_path_factory.mktemp("sglang"))


@pytest.mark.timeout(300)  # importing an engine takes half a minute
class TestVllm:
    def test_its_command_line_takes_our_format_and_gives_it_to_our_loader(self, vllm: dict[str, Any]) -> None:
        assert (vllm["load_format"], vllm["loader"]) == ("weightlift", "loader.adapters.vllm")

    def test_a_model_of_its_own_is_loaded_as_it_loads_it(self, vllm: dict[str, Any]) -> None:
        assert (vllm["model"], vllm["host"]) == (21, [0, 1])

    def test_each_of_two_processes_loads_its_parts_as_it_loads_them(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor() as both:
            told = list(both.map(lambda rank: told_by("vllm", tmp_path, rank, 2), range(2)))
        assert [rank["model"] for rank in told] == [21, 21]
        assert [rank["host"] for rank in told] == [[0, 2], [1, 2]]

    def test_the_tensors_are_those_it_reads(self, vllm: dict[str, Any]) -> None:
        assert vllm["weights"] == 30

    def test_of_mistrals_two_sets_of_files_that_counts_which_it_chooses(self, vllm: dict[str, Any]) -> None:
        assert vllm["mistral"] == [["norm.weight"], ["norm.weight"]]

    def test_experts_of_other_ranks_are_left_out(self, vllm: dict[str, Any]) -> None:
        assert vllm["experts"] == [["mlp.experts.1.up.weight", "mlp.experts.3.up.weight"]] * 2

    def test_files_that_are_no_safetensors_it_reads_itself(self, vllm: dict[str, Any]) -> None:
        assert vllm["pickled"] == ["norm.weight"]

    def test_a_wrong_setting_is_refused(self, vllm: dict[str, Any]) -> None:
        assert vllm["wrong"] == "ConfigurationError: the threads of weightlift must be a number from 1 to 256, not 0"

    def test_a_damaged_file_is_refused_by_our_reader(self, vllm: dict[str, Any]) -> None:
        assert vllm["damaged"].startswith("MalformedCheckpoint: ")
        assert vllm["damaged"].endswith("the file is cut off")


@pytest.mark.timeout(300)
class TestSglang:
    def test_its_command_line_takes_our_format_and_gives_it_to_our_loader(self, sglang: dict[str, Any]) -> None:
        assert (sglang["load_format"], sglang["loader"]) == ("weightlift", "loader.adapters.sglang_loader")

    def test_the_tensors_are_those_it_reads(self, sglang: dict[str, Any]) -> None:
        assert sglang["weights"] == 30

    def test_other_formats_are_as_they_were(self, sglang: dict[str, Any]) -> None:
        assert sglang["others"] == ["auto", "DefaultModelLoader", "dummy", "DummyModelLoader"]

    def test_a_model_that_needs_more_than_loading_gets_its_own_loader(self, sglang: dict[str, Any]) -> None:
        assert sglang["quantized"] == "IncModelLoader"

    def test_a_wrong_setting_is_refused(self, sglang: dict[str, Any]) -> None:
        assert sglang["wrong"] == "ConfigurationError: the threads of weightlift must be a number from 1 to 256, not 0"

    def test_a_damaged_file_is_refused_by_our_reader(self, sglang: dict[str, Any]) -> None:
        assert sglang["damaged"].startswith("MalformedCheckpoint: ")
        assert sglang["damaged"].endswith("the file is cut off")
