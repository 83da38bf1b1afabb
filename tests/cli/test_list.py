"""`fetcher list` and `show`: what a cache holds, when it was last used, and who updates it."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import loader
from fetcher.artifact import ArtifactRef
from fetcher.cache import listed
from fetcher.cli.tables import print_artifacts
from fetcher.store.lease import acquire
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.usage import note_use
from tests.lab.command import run_fetcher, run_loader
from tests.lab.faults import fault_filesystem

MiB = 1024 * 1024
LONG_AGO = 1_600_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache with a large artifact `b` and a small one `a`."""
    for name, size in (("a", MiB), ("b", 3 * MiB)):
        model = make_checkpoint(tmp_path / name, shards=1, shard_size=size)
        assert run_fetcher("fetch", model, "--cache-dir", tmp_path / "cache").returncode == 0
    return tmp_path / "cache"


def artifacts(root: Path, *words: str) -> list[dict[str, Any]]:
    done = run_fetcher("list", "--cache-dir", root, "--json", *words)
    assert done.returncode == 0, done.stderr
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def names(root: Path, *words: str) -> list[str]:
    return [Path(each["uri"]).name for each in artifacts(root, *words)]


def age(root: Path, name: str) -> Path:
    """Make the last use of an artifact long ago. Return its directory."""
    (artifact,) = (each for each in artifacts(root) if Path(each["uri"]).name == name)
    os.utime(root / ".fetcher/usage" / artifact["cache_key"], (LONG_AGO, LONG_AGO))
    return Path(artifact["path"])


def used(root: Path, name: str) -> float:
    (artifact,) = (each for each in artifacts(root) if Path(each["uri"]).name == name)
    return datetime.fromisoformat(artifact["last_used"]).timestamp()


class TestOrder:
    def test_by_key_unless_asked_otherwise(self, root: Path) -> None:
        keys = [each["cache_key"] for each in artifacts(root)]
        assert keys == sorted(keys)
        assert keys == [each["cache_key"] for each in artifacts(root, "--sort", "key")]

    def test_largest_first(self, root: Path) -> None:
        assert names(root, "--sort", "size") == ["b", "a"]

    def test_least_recently_used_first(self, root: Path) -> None:
        age(root, "b")
        assert names(root, "--sort", "used") == ["b", "a"]
        age(root, "a")
        run_fetcher("fetch", root.parent / "b", "--cache-dir", root)
        assert names(root, "--sort", "used") == ["a", "b"]

    def test_never_used_before_all_others(self, root: Path) -> None:
        age(root, "b")
        (artifact,) = (each for each in artifacts(root) if Path(each["uri"]).name == "a")
        (root / ".fetcher/usage" / artifact["cache_key"]).unlink()
        assert names(root, "--sort", "used") == ["a", "b"]
        assert artifacts(root, "--sort", "used")[0]["last_used"] is None

    def test_by_uri(self, root: Path) -> None:
        assert names(root, "--sort", "uri") == ["a", "b"]

    def test_an_unknown_order_is_a_usage_error(self, root: Path) -> None:
        assert run_fetcher("list", "--cache-dir", root, "--sort", "colour").returncode == 64


class TestUse:
    @pytest.mark.parametrize("command", ["warm", "load", "copy"])
    def test_the_loader_renews_it(self, root: Path, command: str, tmp_path: Path) -> None:
        path = age(root, "a")
        words = [tmp_path / "copy"] if command == "copy" else []
        assert run_loader(command, path, *words).returncode == 0
        assert used(root, "a") > LONG_AGO

    @pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
    def test_an_open_checkpoint_renews_it(self, root: Path, name: str) -> None:
        path = age(root, "a")
        loader.open(path / name)
        assert used(root, "a") > LONG_AGO

    def test_a_link_to_the_artifact_renews_it(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(age(root, "a"))
        loader.open(tmp_path / "current")
        assert used(root, "a") > LONG_AGO

    def test_status_and_list_do_not(self, root: Path) -> None:
        path = age(root, "a")
        run_loader("status", path)
        run_fetcher("show", path)
        assert used(root, "a") == LONG_AGO

    @pytest.mark.parametrize("plant", ["record", "directory", "private"])
    def test_no_planted_link_is_followed(self, root: Path, plant: str, tmp_path: Path) -> None:
        path = age(root, "a")
        private = root / ".fetcher"
        place = {"record": private / "usage" / path.name, "directory": private / "usage", "private": private}
        target = tmp_path / "elsewhere"
        place[plant].rename(target)
        place[plant].symlink_to(target)
        loader.open(path)
        victim = {"record": target, "directory": target / path.name, "private": target / "usage" / path.name}[plant]
        assert victim.stat().st_mtime == LONG_AGO

    @pytest.mark.parametrize("plant", [os.mkdir, os.mkfifo])
    def test_a_record_that_is_not_a_file_is_no_record(self, root: Path, plant: Callable[[Path], None]) -> None:
        record = root / ".fetcher/usage" / age(root, "a").name
        record.unlink()
        plant(record)
        assert run_fetcher("fetch", root.parent / "a", "--cache-dir", root).returncode == 0
        assert {Path(each["uri"]).name: each["last_used"] for each in artifacts(root)}["a"] is None

    def test_show_finds_it_through_a_link(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "current").symlink_to(age(root, "a"))
        shown = json.loads(run_fetcher("show", tmp_path / "current", "--json").stdout)
        assert datetime.fromisoformat(shown["last_used"]).timestamp() == LONG_AGO

    @pytest.mark.parametrize("path", ["", "/", "/nonexistent/model", "/proc/1/mem/model", "model\0", "n" * 5000, "loop"])
    def test_a_path_that_cannot_be_read_is_no_error(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "loop").symlink_to("loop")
        note_use(path)

    def test_a_lost_server_is_no_error(self, tmp_path: Path) -> None:
        with fault_filesystem(tmp_path / "fuse") as filesystem:
            (filesystem.source / "model").mkdir()
            filesystem.lose_server()
            note_use(filesystem.path / "model")

    def test_without_a_record_an_open_creates_none(self, tmp_path: Path) -> None:
        loader.open(make_checkpoint(tmp_path / "model", shards=1, shard_size=MiB))
        assert not (tmp_path / ".fetcher").exists()


class TestText:
    def test_a_line_names_key_size_use_and_source(self, root: Path) -> None:
        age(root, "b")
        first, second = run_fetcher("list", "--cache-dir", root, "--sort", "used").stdout.splitlines()
        assert first.split()[0] == ArtifactRef(str(root.parent / "b")).key
        assert "3.0 MiB" in first
        assert " ago" in first
        assert first.endswith(str(root.parent / "b"))
        assert "1.0 MiB" in second

    def test_who_updates_an_artifact_is_shown(self, root: Path) -> None:
        key = artifacts(root)[0]["cache_key"]
        lease = acquire(root / ".fetcher/staging", key, stale=60.0)
        assert lease is not None
        try:
            assert artifacts(root)[0]["lease"] == lease.owner
            assert lease.owner in run_fetcher("list", "--cache-dir", root).stdout
        finally:
            lease.dissolve()
        assert artifacts(root)[0]["lease"] is None

    def test_an_empty_cache_prints_nothing(self, tmp_path: Path) -> None:
        done = run_fetcher("list", "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout) == (0, "")

    def test_a_terminal_gets_a_table(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        print_artifacts(listed(root, on_newer=refused))
        header, *rows = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue()).splitlines()
        assert header.split() == ["key", "size", "revision", "last", "used", "source"]
        assert sorted(each["cache_key"] for each in artifacts(root)) == [
            row.split()[0] for row in rows if not row.startswith(" ")
        ]

    def test_a_terminal_shows_who_keeps_an_artifact_while_there_is_one(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = acquire(root / ".fetcher/staging", artifacts(root)[0]["cache_key"], stale=60.0)
        assert lease is not None
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        print_artifacts(listed(root, on_newer=refused))
        lease.dissolve()
        assert "kept by" in shown.getvalue().splitlines()[0]

    def test_an_empty_cache_has_no_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = Terminal()
        monkeypatch.setattr("sys.stdout", shown)
        print_artifacts(listed(tmp_path, on_newer=refused))
        assert shown.getvalue() == ""


class TestWarm:
    def test_shows_how_much_of_each_artifact_is_in_memory(self, root: Path) -> None:
        for artifact in artifacts(root):
            run_loader("warm", artifact["path"])
        assert all(0.0 < each["warm"] <= 1.0 for each in artifacts(root, "--warm"))
        assert re.search(r"\d+%", run_fetcher("list", "--cache-dir", root, "--warm").stdout)

    def test_is_not_measured_unasked(self, root: Path) -> None:
        assert not any("warm" in each for each in artifacts(root))

    def test_of_files_that_cannot_be_read_is_unknown(self, root: Path) -> None:
        path = Path(artifacts(root)[0]["path"])
        for file in path.glob("*.safetensors"):
            file.unlink()
            file.mkdir()
        assert "warm" in artifacts(root, "--warm")[0]


class TestSummaries:
    def test_no_manifest_is_read_while_all_summaries_match(self, root: Path) -> None:
        before = artifacts(root)
        for each in before:
            record = Path(each["path"]) / ".fetcher/manifest.json"
            status = record.stat()
            with record.open("r+b") as stream:
                stream.write(b"unreadable")
            os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert artifacts(root) == before

    def test_an_artifact_without_a_summary_is_listed_alike(self, root: Path) -> None:
        before = artifacts(root)
        for each in before:
            (Path(each["path"]) / ".fetcher/summary.json").unlink()
        assert artifacts(root) == before


class TestShow:
    def test_tells_the_allocated_and_shared_bytes(self, root: Path) -> None:
        artifact = artifacts(root)[0]
        shown = json.loads(run_fetcher("show", artifact["cache_key"], "--cache-dir", root, "--json").stdout)
        blocks = sum((Path(artifact["path"]) / file["path"]).stat().st_blocks * 512 for file in shown["files"])
        assert (shown["bytes_allocated"], shown["bytes_shared"]) == (blocks, 0)
        large = Path(artifact["path"]) / "model-00001-of-00001.safetensors"
        os.link(large, root.parent / "another name")
        shown = json.loads(run_fetcher("show", artifact["cache_key"], "--cache-dir", root, "--json").stdout)
        assert (shown["bytes_allocated"], shown["bytes_shared"]) == (blocks, large.stat().st_blocks * 512)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def refused(error: Exception) -> None:
    raise error
