"""Run the command line as users do: in a separate process with an exit code, stdout and stderr."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FETCHER = (sys.executable, "-m", "fetcher")
LOADER = (sys.executable, "-m", "loader")
STORAGE_INITIALIZER = (sys.executable, "-m", "fetcher.dropins.storage_initializer")
MODEL_DOWNLOADER = (sys.executable, "-m", "fetcher.dropins.model_downloader")


def run_fetcher(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60.0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `fetcher` to its end and return the result, whatever its exit code. `env` is added to the test's clean environment.

    Kills the process after `timeout` seconds and raises subprocess.TimeoutExpired.
    """
    return _run([*FETCHER, *map(str, arguments)], env=env, timeout=timeout, cwd=cwd)


def run_loader(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    cwd: Path | None = None,
    within: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `loader` to its end, like `run_fetcher`; `within` is a command prefix."""
    return _run([*within, *LOADER, *map(str, arguments)], env=env, timeout=timeout, cwd=cwd)


def run_command(
    command: Sequence[str], *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run another command to its end, like `run_fetcher`."""
    return _run([*command, *map(str, arguments)], env=env, timeout=timeout, cwd=None)


def _run(
    command: Sequence[str], *, env: Mapping[str, str] | None, timeout: float, cwd: Path | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def started_fetcher(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start `fetcher` in a new process group, so that a test can stop, continue or kill it. The caller ends it."""
    return _start([*FETCHER, *map(str, arguments)], env=env, cwd=cwd)


def started_loader(
    *arguments: str | Path, env: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start `loader`, like `started_fetcher`."""
    return _start([*within, *LOADER, *map(str, arguments)], env=env, cwd=None)


def started_command(
    command: Sequence[str], *arguments: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start another command, like `started_fetcher`."""
    return _start([*command, *map(str, arguments)], env=env, cwd=None)


def _start(command: Sequence[str], *, env: Mapping[str, str] | None, cwd: Path | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill the process if it runs or is stopped, and close its pipes. Idempotent."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def listening_at(process: subprocess.Popen[str]) -> str:
    """Return the address of a command started with `--metrics-port 0 --progress log`, from its log."""
    assert process.stderr is not None
    for line in process.stderr:
        if "listening at " in line:
            return line.partition("listening at ")[2].partition(": ")[0]
    raise AssertionError("the command ended without listening")
