"""Our load format in vLLM and SGLang themselves. `make engines` makes environments for them: they are large."""

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


def results_of(engine: str, directory: Path, *numbers: int) -> dict[str, Any]:
    """Return the results of a process with this engine. Skips if the engine is not installed."""
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
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of("vllm", tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def sglang(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return results_of("sglang", tmp_path_factory.mktemp("sglang"))


@pytest.mark.timeout(300)  # importing an engine takes half a minute
class TestVllm:
    def test_the_engine_s_command_line_accepts_our_format_and_uses_our_loader(self, vllm: dict[str, Any]) -> None:
        assert (vllm["load_format"], vllm["loader"]) == ("weightlift", "loader.adapters.vllm")

    def test_a_model_has_the_same_parameters_as_with_vllm_s_own_loader(self, vllm: dict[str, Any]) -> None:
        assert (vllm["model"], vllm["host"]) == (21, [0, 1])

    def test_each_of_two_tensor_parallel_processes_loads_the_same_parameters(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor() as both:
            results = list(both.map(lambda rank: results_of("vllm", tmp_path, rank, 2), range(2)))
        assert [rank["model"] for rank in results] == [21, 21]
        assert [rank["host"] for rank in results] == [[0, 2], [1, 2]]

    def test_the_tensors_equal_those_of_the_engine_s_own_loader(self, vllm: dict[str, Any]) -> None:
        assert vllm["weights"] == 30

    def test_vllm_chooses_between_mistral_s_two_sets_of_files(self, vllm: dict[str, Any]) -> None:
        assert vllm["mistral"] == [["norm.weight"], ["norm.weight"]]

    def test_an_address_is_streamed_without_a_disk(self, vllm: dict[str, Any]) -> None:
        assert (vllm["streamed"], vllm["served"], vllm["on disk"], vllm["bodies"]) == (21, "hf://org/llama", [], True)

    def test_experts_of_other_ranks_are_skipped(self, vllm: dict[str, Any]) -> None:
        assert vllm["experts"] == [["mlp.experts.1.up.weight", "mlp.experts.3.up.weight"]] * 2

    def test_vllm_itself_reads_files_in_other_formats(self, vllm: dict[str, Any]) -> None:
        assert vllm["pickled"] == ["norm.weight"]

    def test_a_wrong_setting_is_refused(self, vllm: dict[str, Any]) -> None:
        assert vllm["wrong"] == "ConfigurationError: the threads of weightlift must be a number from 1 to 256, not 0"

    def test_a_damaged_file_is_refused_with_our_message(self, vllm: dict[str, Any]) -> None:
        assert vllm["damaged"].startswith("MalformedCheckpoint: ")
        assert vllm["damaged"].endswith("the file is truncated; fetch it again")


@pytest.mark.timeout(300)
class TestSglang:
    def test_the_engine_s_command_line_accepts_our_format_and_uses_our_loader(self, sglang: dict[str, Any]) -> None:
        assert (sglang["load_format"], sglang["loader"]) == ("weightlift", "loader.adapters.sglang_loader")

    def test_the_tensors_equal_those_of_the_engine_s_own_loader(self, sglang: dict[str, Any]) -> None:
        assert sglang["weights"] == 30

    def test_an_address_is_streamed_without_a_disk(self, sglang: dict[str, Any]) -> None:
        assert (sglang["streamed"], sglang["served"], sglang["on disk"]) == (30, "hf://org/llama", [])

    def test_other_load_formats_keep_their_loaders(self, sglang: dict[str, Any]) -> None:
        assert sglang["others"] == ["auto", "DefaultModelLoader", "dummy", "DummyModelLoader"]

    def test_a_model_that_is_quantized_first_gets_sglang_s_own_loader(self, sglang: dict[str, Any]) -> None:
        assert sglang["quantized"] == "IncModelLoader"

    def test_a_wrong_setting_is_refused(self, sglang: dict[str, Any]) -> None:
        assert sglang["wrong"] == "ConfigurationError: the threads of weightlift must be a number from 1 to 256, not 0"

    def test_a_damaged_file_is_refused_with_our_message(self, sglang: dict[str, Any]) -> None:
        assert sglang["damaged"].startswith("MalformedCheckpoint: ")
        assert sglang["damaged"].endswith("the file is truncated; fetch it again")
