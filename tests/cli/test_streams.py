"""The output on stdout and stderr, also if one of them is closed, full or a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.cli.conftest import SLOW, URI, MiB, last_line
from tests.lab.command import FETCHER, run_fetcher
from tests.lab.fixtures import StartFetcher

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_shell(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `script`, in which "$@" is the command."""
    command = ["bash", "-c", script, "bash", *FETCHER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestClosedStreams:
    @pytest.fixture
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A local source, since these tests do not depend on the kind of source."""
        path = tmp_path_factory.mktemp("source")
        (path / "config.json").write_bytes(b"{}")
        return path

    def test_a_closed_pipe_on_stdout_causes_no_traceback(self, source: Path, tmp_path: Path) -> None:
        done = in_a_shell('"$@" | true; exit ${PIPESTATUS[0]}', "fetch", source, "--cache-dir", tmp_path)
        assert (done.returncode, last_line(done.stderr)) == (74, "IOError: cannot write to stdout: its reader has closed it")
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr

    def test_a_closed_stdout_counts_as_the_null_device(self, source: Path, tmp_path: Path) -> None:
        done = in_a_shell('"$@" >&-', "fetch", source, "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout) == (0, "")
        assert "done: 1 file" in last_line(done.stderr)

    def test_with_a_closed_stderr_stdout_has_only_the_result(self, source: Path, tmp_path: Path) -> None:
        done = in_a_shell('"$@" 2>&-', "fetch", source, "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / ArtifactRef(str(source)).key}\n", "")

    def test_with_a_closed_stderr_an_error_does_not_go_to_stdout(self, tmp_path: Path) -> None:
        done = in_a_shell('"$@" 2>&-', "fetch", "hdfs://bucket/model", "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout) == (64, "")

    def test_a_full_device_on_stderr_does_not_stop_the_fetch(self, source: Path, tmp_path: Path) -> None:
        done = in_a_shell('"$@" 2>/dev/full', "fetch", source, "--cache-dir", tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / ArtifactRef(str(source)).key}\n")

    def test_a_full_device_on_stdout_is_reported(self, source: Path, tmp_path: Path) -> None:
        done = in_a_shell('"$@" >/dev/full', "fetch", source, "--cache-dir", tmp_path)
        assert done.returncode == 74
        assert last_line(done.stderr) == "IOError: cannot write the result to stdout: no space left on device"

    @pytest.mark.parametrize("words", [("--help",), ("--version",), ("fetch", "--help"), ("key", "hf://org/model")])
    def test_every_command_fails_if_its_result_cannot_be_written(self, words: tuple[str, ...]) -> None:
        done = in_a_shell('"$@" >/dev/full', *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (74, 1)

    def test_a_path_that_is_not_utf_8_is_printed_as_its_own_bytes(self, source: Path, tmp_path: Path) -> None:
        root = os.fsencode(tmp_path) + b"/\xff"
        done = subprocess.run([*FETCHER, "fetch", source, "--cache-dir", root], capture_output=True, timeout=60, check=True)
        assert done.stdout == root + b"/" + ArtifactRef(str(source)).key.encode() + b"\n"


class TestLogLines:
    def test_each_line_has_the_time_and_the_last_one_is_the_summary(self, origin: Origin, tmp_path: Path) -> None:
        lines = run_fetcher("fetch", URI, "--cache-dir", tmp_path, "--progress", "log").stderr.splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d \S", line) for line in lines), lines
        assert "done: 2 files, 3.0 MiB in" in lines[-1]

    def test_a_line_is_printed_every_few_seconds_also_during_a_stall(
        self, origin: Origin, tmp_path: Path, start_fetcher: StartFetcher
    ) -> None:
        origin.faults.add(Fault(Stall(after=MiB), origin="cdn"))
        fetching = start_fetcher("fetch", SLOW, "--cache-dir", tmp_path, "--progress", "log", "--timeout-stall", "60")
        assert fetching.stderr is not None
        lines = [fetching.stderr.readline() for _ in range(2)]
        assert re.search(r" of 24\.0 MiB \(\d+ %\), .*, \d+ connections?$", lines[1].rstrip("\n")), lines


class TestJsonLines:
    def test_every_line_parses_and_has_a_time_also_on_failure(self, origin: Origin, tmp_path: Path) -> None:
        done = run_fetcher("fetch", URI + "@nothing", "--cache-dir", tmp_path, "--progress", "json")
        *lines, sentence = done.stderr.splitlines()
        assert all({"event", "ts"} <= set(json.loads(line)) for line in lines)
        assert (done.returncode, sentence.partition(" ")[0]) == (66, "NotFound:")

    def test_byte_counts_are_summed_into_progress_lines(self, origin: Origin, tmp_path: Path) -> None:
        done = run_fetcher("fetch", SLOW, "--cache-dir", tmp_path, "--progress", "json")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        progress = [event for event in events if event["event"] == "Progress"]
        assert progress
        assert all(event["done"] <= event["total"] == 24 * MiB for event in progress)
        assert not [event for event in events if event["event"] == "BytesReceived"]


def on_a_terminal(*arguments: object, env: dict[str, str], signals: Iterable[signal.Signals] = ()) -> tuple[int, str]:
    """Run the command on a terminal of 80 columns; return exit code and everything shown, stdout and stderr mixed.

    `signals` are sent one after the other when the bar is first drawn.
    """
    outer, inner = pty.openpty()
    command = [*FETCHER, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, env={**os.environ, "TERM": "xterm", **env}
    ) as process:
        os.close(inner)
        shown = b""
        while piece := _read(outer):
            shown += piece
            if signals and "━".encode() in shown:
                for number in signals:
                    process.send_signal(number)
                signals = ()
        code = process.wait(timeout=60)
    os.close(outer)
    return code, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # EIO: the other side is closed
        return b""


def visible_lines(shown: str) -> list[str]:
    """Return the lines that remain visible, emulating the control sequences that the bar uses."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.endswith("A") and part.startswith("\x1b["):
            row -= int(part[2:-1] or 1)
        elif not part.startswith("\x1b") and part != "\r":
            lines[row] = part if shown else lines[row]
    return [line for line in lines if line.strip()]


class TestBar:
    @pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
    def test_after_the_fetch_only_the_summary_and_the_path_remain(
        self, origin: Origin, tmp_path: Path, env: dict[str, str]
    ) -> None:
        origin.throttle(total=8 * MiB)
        code, shown = on_a_terminal("fetch", URI, "--cache-dir", tmp_path, env=env)
        *_, summary, path = visible_lines(shown)
        assert code == 0
        assert summary.startswith("done: 2 files, 3.0 MiB in ")
        assert path == str(tmp_path / ArtifactRef(URI).key)
        assert "━" in shown
        assert "━" not in "".join(visible_lines(shown))

    def test_no_color_is_respected(self, origin: Origin, tmp_path: Path) -> None:
        _, shown = on_a_terminal("fetch", URI, "--cache-dir", tmp_path, env={"NO_COLOR": "1"})
        assert not [code for code in CONTROL.findall(shown) if re.search(r"[\[;][349][0-7]m", code)]

    def test_a_dumb_terminal_gets_log_lines(self, origin: Origin, tmp_path: Path) -> None:
        _, shown = on_a_terminal("fetch", URI, "--cache-dir", tmp_path, env={"TERM": "dumb"})
        assert "\x1b" not in shown
        assert "done: 2 files" in shown

    def test_an_error_is_the_last_line(self, origin: Origin, tmp_path: Path) -> None:
        code, shown = on_a_terminal("fetch", URI + "@nothing", "--cache-dir", tmp_path, env={})
        assert code == 66
        assert visible_lines(shown)[-1].startswith("NotFound: ")
        assert shown.endswith("\n")
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is shown again"

    def test_two_signals_restore_the_cursor_and_print_the_last_line(self, origin: Origin, tmp_path: Path) -> None:
        origin.throttle(total=MiB)
        code, shown = on_a_terminal("fetch", SLOW, "--cache-dir", tmp_path, env={}, signals=(signal.SIGINT, signal.SIGTERM))
        assert code in (128 + signal.SIGINT, 128 + signal.SIGTERM)
        assert visible_lines(shown)[-1].startswith("Interrupted: SIG")
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is shown again"
