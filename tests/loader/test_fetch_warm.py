"""`fetcher fetch --warm` fetches and warms, without reading again what it has just written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.cli.conftest import last_line
from tests.lab.cgroups import in_group
from tests.lab.command import FETCHER, run_command, run_fetcher
from tests.loader.conftest import MiB, cool, resident

pytestmark = pytest.mark.page_cache

URI = "hf://org/sharded"


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """An origin with a sharded checkpoint."""
    made = make_checkpoint(tmp_path / "published", shards=2, shard_size=4 * MiB)
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/sharded", {path.name: path.read_bytes() for path in made.iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def root(public: Path) -> Path:
    """A cache on disk, where pages can be cold."""
    return public / "cache"


def fetched(root: Path, *words: str) -> dict[str, Any]:
    done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--json", *words)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.usefixtures("sharded")
class TestWarm:
    def test_fetched_files_are_in_memory_without_being_read_again(self, root: Path) -> None:
        result = fetched(root)
        assert resident(Path(result["path"])) == 1
        assert result["warm"]["after"]["fraction"] == 1
        assert result["warm"]["bytes_read"] == 0

    def test_a_cached_artifact_that_is_cold_is_warmed(self, root: Path) -> None:
        path = Path(fetched(root)["path"])
        cool(path)
        again = fetched(root)
        assert again["cached"]
        assert again["warm"]["bytes_read"] > 4 * MiB  # reading the headers also reads some bytes behind them
        assert resident(path) == 1

    def test_stdout_has_only_the_path_and_stderr_the_rest(self, root: Path) -> None:
        done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--progress", "log")
        assert Path(done.stdout.strip()).is_dir()
        assert "warm: 100 % of 8.0 MiB in memory; nothing had to be read" in done.stderr

    def test_the_environment_variable_works_like_the_flag(self, root: Path) -> None:
        done = run_fetcher("fetch", URI, "--cache-dir", root, "--json", env={"FETCHER_WARM": "1"})
        assert json.loads(done.stdout)["warm"]["after"]["fraction"] == 1

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"model.safetensors": b"\xff" * 100}, "MalformedCheckpoint"),
            ({"config.json": b"{}", "README.md": b"no weights"}, "NotFound"),
            ({"model.safetensors.index.json": b"[]"}, "MalformedCheckpoint"),
        ],
        ids=["damaged", "no weights", "a broken index"],
    )
    def test_files_that_cannot_be_warmed_are_still_fetched(
        self, root: Path, sharded: Origin, files: dict[str, bytes], reason: str
    ) -> None:
        sharded.add_repo("org/odd", files)
        done = run_fetcher("fetch", "hf://org/odd", "--cache-dir", root, "--warm", "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_dir()
        assert f"warning: {reason}: the fetch is complete, but the artifact was not warmed: " in done.stderr

    def test_the_json_result_says_why_it_is_not_warm(self, root: Path, sharded: Origin) -> None:
        sharded.add_repo("org/odd", {"config.json": b"{}"})
        done = run_fetcher("fetch", "hf://org/odd", "--cache-dir", root, "--warm", "--json")
        result = json.loads(done.stdout)
        assert (done.returncode, result["warm"], result["warm_problem"].partition(" ")[0]) == (0, None, "NotFound:")

    def test_too_little_memory_for_warming_is_a_warning(self, root: Path, sharded: Origin, cgroup: Path) -> None:
        made = make_checkpoint(root.parent / "large", shards=2, shard_size=48 * MiB)
        sharded.add_repo("org/large", {path.name: path.read_bytes() for path in made.iterdir()})
        words = ("fetch", "hf://org/large", "--cache-dir", root)
        assert run_fetcher(*words).returncode == 0
        cool(root)
        done = run_command((*in_group(cgroup), *FETCHER), *words, "--warm", "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert "warning: TooLarge: " in done.stderr


def test_warm_and_page_cache_drop_together_are_refused(root: Path) -> None:
    done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--page-cache", "drop")
    assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (64, "Usage")
