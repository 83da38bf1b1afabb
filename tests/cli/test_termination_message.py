"""The termination message: one line, always written to the requested file, and never a reason to fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fetcher.command import termination
from fetcher.command.termination import LIMIT, destination, encode, write_message
from fetcher.testing.origin import Origin
from tests.cli.conftest import URI
from tests.lab.command import run_fetcher

FAILURE = {"reason": "NotFound", "message": "no such file", "retryable": False, "bytes": 0, "seconds": 0.1}


@pytest.mark.parametrize(
    "words",
    [["fetch"], ["fetch", URI, "--memory-limit", "much"]],
    ids=["no URI", "a bad value"],
)
def test_a_usage_error_is_written_too(tmp_path: Path, words: list[str]) -> None:
    log = tmp_path / "log"
    done = run_fetcher(*words, env={"FETCHER_TERMINATION_LOG": str(log), "FETCHER_CACHE_DIR": str(tmp_path)})
    message = json.loads(log.read_text())
    assert (done.returncode, set(message)) == (64, set(FAILURE))
    assert done.stderr.endswith(f"{message['reason']}: {message['message']}\n")


def test_a_bad_variable_is_written_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_fetcher("fetch", URI, env={"FETCHER_TERMINATION_LOG": str(log), "FETCHER_MEMORY_LIMIT": "much"})
    assert json.loads(log.read_text())["reason"] == "Configuration"


def test_commands_that_containers_do_not_run_write_no_message(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for words in (["key", "hf://org/m"], ["key"], ["show", "nothing"]):
        run_fetcher(*words, env={"FETCHER_TERMINATION_LOG": str(log)})
    assert not log.exists()


def test_a_file_that_cannot_be_written_does_not_fail_the_fetch(origin: Origin, tmp_path: Path) -> None:
    assert not origin.requests
    done = run_fetcher("fetch", URI, "--cache-dir", tmp_path, "--termination-log", tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "termination" not in done.stderr


def test_a_longer_previous_message_is_replaced_completely(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 9000)
    write_message(log, FAILURE)
    assert json.loads(log.read_text()) == FAILURE


class TestKubernetes:
    @pytest.fixture
    def kubernetes_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A substitute for /dev/termination-log, which only a container has."""
        path = tmp_path / "termination-log"
        monkeypatch.setattr(termination, "KUBERNETES", path)
        return path

    def test_its_file_is_used_if_it_exists(self, kubernetes_file: Path) -> None:
        kubernetes_file.touch()
        assert destination(None) == kubernetes_file
        write_message(destination(None), FAILURE)
        assert json.loads(kubernetes_file.read_text()) == FAILURE

    def test_its_file_is_never_created(self, kubernetes_file: Path) -> None:
        assert destination(None) is None
        write_message(kubernetes_file, FAILURE)
        assert not kubernetes_file.exists()

    def test_a_requested_file_takes_precedence(self, kubernetes_file: Path, tmp_path: Path) -> None:
        kubernetes_file.touch()
        assert destination(tmp_path / "log") == tmp_path / "log"

    def test_the_real_file_is_not_created_outside_a_container(self, tmp_path: Path) -> None:
        if Path("/dev/termination-log").exists():
            pytest.skip("this runs in a container that has /dev/termination-log")
        run_fetcher("fetch", "hdfs://bucket/m", "--termination-log", "/dev/termination-log")
        assert not Path("/dev/termination-log").exists()


class TestLength:
    @pytest.mark.parametrize("length", [0, 3000, 3400, 3500, 100_000])
    @pytest.mark.parametrize("character", ["x", "\n", '"', "\\", "\N{SNOWMAN}", "\N{ROCKET}", "\udcff"])
    def test_the_line_is_below_the_limit_and_parses(self, length: int, character: str) -> None:
        line = encode({**FAILURE, "message": character * length})
        assert len(line) < LIMIT
        assert line.count(b"\n") == 1
        assert (character * length).startswith(json.loads(line)["message"].removesuffix("..."))

    def test_the_message_is_cut_no_more_than_needed(self) -> None:
        assert len(encode({**FAILURE, "message": "x" * 100_000})) == LIMIT - 1

    def test_the_path_is_cut_only_after_the_message(self) -> None:
        line = encode({**FAILURE, "message": "m" * 5000, "path": "/p" * 1000})
        assert json.loads(line)["path"] == "/p" * 1000
        line = encode({**FAILURE, "message": "m" * 5000, "path": "/p" * 3000})
        assert len(line) < LIMIT
        assert json.loads(line)["message"] == "..."


def test_a_full_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for _ in range(40):  # a pipe holds 64 KiB
            write_message(tmp_path / "log", {**FAILURE, "message": "x" * 3000})
    finally:
        os.close(reader)


def test_a_fifo_without_a_reader_does_not_block_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert run_fetcher("fetch", "hdfs://bucket/model", "--termination-log", tmp_path / "log").returncode == 64
