"""nginx as a server of a comparison. It has one worker, pinned to one processor for all contenders. Clients are not pinned."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import processor_seconds
from tests.lab.nginx import stop

_CONFIGURATION = """\
daemon off;
worker_processes 1;
worker_cpu_affinity {affinity};
pid {workspace}/pid;
error_log {workspace}/error.log;
{user}
events {{ worker_connections 2048; }}
http {{
    log_format sent '$body_bytes_sent';
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path {workspace}/temporary;
    proxy_temp_path {workspace}/temporary;
    fastcgi_temp_path {workspace}/temporary;
    uwsgi_temp_path {workspace}/temporary;
    scgi_temp_path {workspace}/temporary;
    map_hash_max_size 65536;
    map_hash_bucket_size 256;
{servers}
}}
"""


@contextmanager
def running(workspace: Path, servers: str, *, within: Sequence[str] = ()) -> Iterator[Callable[[], float]]:
    """Run nginx until the block ends. `servers` is its configuration below `http`; a log may have the format `sent`.

    The block gets a function that returns the processor seconds of nginx so far.

    `within`: a prefix of the command, such as one that enters a network namespace. Raises RuntimeError if nginx does not start.
    """
    configuration = _CONFIGURATION.format(
        workspace=workspace,
        affinity=format(1 << ((os.cpu_count() or 1) - 1), "b"),
        user="user root;" if os.geteuid() == 0 else "",
        servers=servers,
    )
    (workspace / "nginx.conf").write_text(configuration)
    process = _started(workspace, within)
    try:
        _wait_until_up(process, workspace)
        yield lambda: processor_seconds(process.pid)
    finally:
        stop(process)


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _started(workspace: Path, within: Sequence[str]) -> subprocess.Popen[bytes]:
    executable = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        raise RuntimeError("nginx is missing; on Debian: apt-get install nginx-light")
    words = [executable, "-p", str(workspace), "-e", str(workspace / "error.log"), "-c", str(workspace / "nginx.conf")]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*within, *words], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _wait_until_up(process: subprocess.Popen[bytes], workspace: Path) -> None:
    """Wait for nginx's pid file, which it writes after it listens."""
    deadline = time.monotonic() + 10
    while not (workspace / "pid").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nginx did not start: {(workspace / 'error.log').read_text()}")
        time.sleep(0.01)
