"""`fetcher fetch --warm`: one command for fetching and warming, which reads nothing again that it has just written."""

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
    """An origin with a checkpoint that a loader reads."""
    made = make_checkpoint(tmp_path / "published", shards=2, shard_size=4 * MiB)
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/sharded", {path.name: path.read_bytes() for path in made.iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def root(public: Path) -> Path:
    """On a disk, whose pages may or may not be in memory."""
    return public / "cache"


def fetched(root: Path, *words: str) -> dict[str, Any]:
    done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--json", *words)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.usefixtures("sharded")
class TestWarm:
    def test_what_was_fetched_is_in_memory_and_was_not_read_again(self, root: Path) -> None:
        result = fetched(root)
        assert resident(Path(result["path"])) == 1
        assert result["warm"]["after"]["fraction"] == 1
        assert result["warm"]["bytes_read"] == 0

    def test_a_hit_that_is_cold_is_warmed(self, root: Path) -> None:
        path = Path(fetched(root)["path"])
        cool(path)
        again = fetched(root)
        assert again["cached"]
        assert again["warm"]["bytes_read"] > 4 * MiB  # reading headers brings in what lies behind them
        assert resident(path) == 1

    def test_only_the_path_is_printed_and_the_rest_is_said_on_stderr(self, root: Path) -> None:
        done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--progress", "log")
        assert Path(done.stdout.strip()).is_dir()
        assert "warm: 100 % of 8.0 MiB in memory; nothing had to be read" in done.stderr

    def test_the_variable_does_as_the_flag(self, root: Path) -> None:
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
    def test_what_cannot_be_warmed_was_fetched_all_the_same(
        self, root: Path, sharded: Origin, files: dict[str, bytes], reason: str
    ) -> None:
        sharded.add_repo("org/odd", files)
        done = run_fetcher("fetch", "hf://org/odd", "--cache-dir", root, "--warm", "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_dir()
        assert f"warning: {reason}: the fetch is complete, but the artifact was not warmed: " in done.stderr

    def test_the_result_says_why_it_is_not_warm(self, root: Path, sharded: Origin) -> None:
        sharded.add_repo("org/odd", {"config.json": b"{}"})
        done = run_fetcher("fetch", "hf://org/odd", "--cache-dir", root, "--warm", "--json")
        result = json.loads(done.stdout)
        assert (done.returncode, result["warm"], result["warm_problem"].partition(" ")[0]) == (0, None, "NotFound:")

    def test_too_little_memory_is_a_warning(self, root: Path, sharded: Origin, cgroup: Path) -> None:
        made = make_checkpoint(root.parent / "large", shards=2, shard_size=48 * MiB)
        sharded.add_repo("org/large", {path.name: path.read_bytes() for path in made.iterdir()})
        words = ("fetch", "hf://org/large", "--cache-dir", root)
        assert run_fetcher(*words).returncode == 0
        cool(root)
        done = run_command((*in_group(cgroup), *FETCHER), *words, "--warm", "--progress", "log")
        assert done.returncode == 0, done.stderr
        assert "warning: TooLarge: " in done.stderr


def test_keeping_and_dropping_at_once_is_refused(root: Path) -> None:
    done = run_fetcher("fetch", URI, "--cache-dir", root, "--warm", "--page-cache", "drop")
    assert (done.returncode, last_line(done.stderr).partition(":")[0]) == (64, "Usage")
