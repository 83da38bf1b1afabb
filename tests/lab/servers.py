"""Servers that others wrote, as processes on loopback: a free port, a start that is waited for, and an end."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.waiting import wait_until


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether a server listens on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(command: Sequence[str | Path], log: Path, *, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server until the end of the block, and wait until it is `ready`. Its output goes to `log`.

    Raises AssertionError with its output if it ends before.
    """
    with log.open("wb") as output:
        server = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_until(lambda: server.poll() is not None or ready(), f"{command[0]} is ready", timeout=60)
            assert server.poll() is None, f"{command[0]} ended at once: {log.read_text()[-1000:]}"
            yield
        finally:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
