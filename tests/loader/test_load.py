"""`loader load` reads every tensor as an engine would, in a separate process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import last_line
from tests.lab.command import run_loader
from tests.loader.conftest import MiB, make_warm, resident
from tests.loader.making import shard

pytestmark = pytest.mark.page_cache


def loaded(*words: str | Path, **how: Any) -> dict[str, Any]:
    done = run_loader("load", *words, "--json", **how)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_result_has_amount_rate_and_strategy(model: Path) -> None:
    result = loaded(model)
    assert (result["tensors"], result["files"], result["bytes"]) == (6, 2, 8 * MiB)
    assert result["rate"] > 0
    assert 0 < result["first_tensor_seconds"] <= result["seconds"]
    assert result["strategy"] == "direct"
    assert result["strategy_reason"]


@pytest.mark.parametrize("strategy", ["buffered", "direct", "mmap"])
def test_the_strategy_can_be_set_by_flag_and_by_environment_variable(model: Path, strategy: str) -> None:
    assert loaded(model, "--strategy", strategy)["strategy"] == strategy
    assert loaded(model, env={"LOADER_STRATEGY": strategy})["strategy"] == strategy
    assert (resident(model) > 0.9) == (strategy != "direct")


def test_resident_files_are_mapped(model: Path) -> None:
    for path in model.iterdir():
        make_warm(path)
    assert loaded(model, "--strategy", "auto")["strategy"] == "mmap"


def test_each_rank_reads_its_own_part(model: Path) -> None:
    parts = [loaded(model, "--rank", str(rank), "--world-size", "2") for rank in range(2)]
    assert [part["tensors"] for part in parts] == [3, 3]
    assert sum(part["bytes"] for part in parts) == 8 * MiB


def test_the_text_output_is_one_line(model: Path) -> None:
    done = run_loader("load", model)
    (line,) = done.stdout.splitlines()
    assert line.startswith("6 tensors, 8.0 MiB in ")
    assert "direct: ext4 is local" in line or "buffered: " in line


def test_a_damaged_file_has_its_own_exit_code(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").write_bytes(b"\xff" * 100)
    done = run_loader("load", model)
    assert done.returncode == 65
    assert last_line(done.stderr).startswith(f"MalformedCheckpoint: {model}/model-00002-of-00002.safetensors: header length: ")


def test_a_rank_beyond_the_world_size_is_a_usage_error(model: Path) -> None:
    done = run_loader("load", model, "--rank", "2", "--world-size", "2")
    assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (64, "Usage")


def test_the_result_is_in_the_termination_message(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_loader("load", model, "--termination-log", log)
    assert json.loads(log.read_text())["bytes"] == 8 * MiB


def test_a_duplicate_tensor_name_is_a_warning_and_each_tensor_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(shard({"x": b"1"}))
    (tmp_path / "b.safetensors").write_bytes(shard({"x": b"22", "y": b"3"}))
    done = run_loader("load", tmp_path, "--json", "--progress", "log")
    assert (done.returncode, json.loads(done.stdout)["tensors"], json.loads(done.stdout)["bytes"]) == (0, 2, 3)
    assert "1 tensor name in more than one file, such as 'x': the last file wins" in done.stderr
