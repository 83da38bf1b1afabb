"""One line for whoever runs the pod: always written where it was asked for, never in the way."""

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
def test_a_wrong_command_line_is_told_too(tmp_path: Path, words: list[str]) -> None:
    log = tmp_path / "log"
    done = run_fetcher(*words, env={"FETCHER_TERMINATION_LOG": str(log), "FETCHER_CACHE_DIR": str(tmp_path)})
    message = json.loads(log.read_text())
    assert (done.returncode, set(message)) == (64, set(FAILURE))
    assert done.stderr.endswith(f"{message['reason']}: {message['message']}\n")


def test_a_bad_variable_is_told_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_fetcher("fetch", URI, env={"FETCHER_TERMINATION_LOG": str(log), "FETCHER_MEMORY_LIMIT": "much"})
    assert json.loads(log.read_text())["reason"] == "Configuration"


def test_other_commands_leave_a_pods_message_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for words in (["key", "hf://org/m"], ["key"], ["show", "nothing"]):
        run_fetcher(*words, env={"FETCHER_TERMINATION_LOG": str(log)})
    assert not log.exists()


def test_a_place_that_cannot_be_written_changes_nothing(origin: Origin, tmp_path: Path) -> None:
    assert not origin.requests
    done = run_fetcher("fetch", URI, "--cache-dir", tmp_path, "--termination-log", tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert "termination" not in done.stderr


def test_a_longer_message_of_before_is_replaced_wholly(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 9000)
    write_message(log, FAILURE)
    assert json.loads(log.read_text()) == FAILURE


class TestKubernetes:
    @pytest.fixture
    def there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Stands for /dev/termination-log, which only a container has."""
        path = tmp_path / "termination-log"
        monkeypatch.setattr(termination, "KUBERNETES", path)
        return path

    def test_its_file_is_used_when_it_is_there(self, there: Path) -> None:
        there.touch()
        assert destination(None) == there
        write_message(destination(None), FAILURE)
        assert json.loads(there.read_text()) == FAILURE

    def test_its_file_is_never_made(self, there: Path) -> None:
        assert destination(None) is None
        write_message(there, FAILURE)
        assert not there.exists()

    def test_another_file_that_was_asked_for_wins(self, there: Path, tmp_path: Path) -> None:
        there.touch()
        assert destination(tmp_path / "log") == tmp_path / "log"

    def test_the_real_one_is_not_made_outside_a_container(self, tmp_path: Path) -> None:
        if Path("/dev/termination-log").exists():
            pytest.skip("this runs in a container that has /dev/termination-log")
        run_fetcher("fetch", "s3://bucket/m", "--termination-log", "/dev/termination-log")
        assert not Path("/dev/termination-log").exists()


class TestLength:
    @pytest.mark.parametrize("length", [0, 3000, 3400, 3500, 100_000])
    @pytest.mark.parametrize("character", ["x", "\n", '"', "\\", "\N{SNOWMAN}", "\N{ROCKET}", "\udcff"])
    def test_it_is_below_the_limit_and_parses(self, length: int, character: str) -> None:
        line = encode({**FAILURE, "message": character * length})
        assert len(line) < LIMIT
        assert line.count(b"\n") == 1
        assert (character * length).startswith(json.loads(line)["message"].removesuffix("..."))

    def test_no_more_is_cut_than_needed(self) -> None:
        assert len(encode({**FAILURE, "message": "x" * 100_000})) == LIMIT - 1

    def test_a_path_is_cut_only_after_the_message(self) -> None:
        line = encode({**FAILURE, "message": "m" * 5000, "path": "/p" * 1000})
        assert json.loads(line)["path"] == "/p" * 1000
        line = encode({**FAILURE, "message": "m" * 5000, "path": "/p" * 3000})
        assert len(line) < LIMIT
        assert json.loads(line)["message"] == "..."


def test_a_fifo_that_nobody_empties_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        for _ in range(40):  # a pipe holds 64 KiB
            write_message(tmp_path / "log", {**FAILURE, "message": "x" * 3000})
    finally:
        os.close(reader)


def test_a_fifo_that_nobody_reads_does_not_hang_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    assert run_fetcher("fetch", "s3://bucket/model", "--termination-log", tmp_path / "log").returncode == 64
