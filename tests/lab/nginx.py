"""Debian's nginx as an origin: a server that was not written for this project, with ranges, TLS and rate limits.

It inherits its listening sockets (the variable NGINX, intended for upgrades without downtime). So no other process can take a
port between choosing and binding it, and clients can connect before nginx is up.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.lab.availability import program
from tests.lab.waiting import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an nginx responds to every request. `unavailable_for` takes precedence over `redirect_to`.

    `limit_rate`: bytes a second for each connection. `max_ranges`: 0 makes it ignore Range and send the whole file.
    `redirect_to`: an origin such as `http://127.0.0.1:8000`; responds with 302 and the same path and query.
    `unavailable_for`: seconds; responds with 503 and Retry-After. `lines`: other directives. `aside`: what stands beside the
    location of all requests, and `above` what stands before the server.
    """

    limit_rate: int | None = None
    max_ranges: int | None = None
    redirect_to: str | None = None
    unavailable_for: int | None = None
    lines: tuple[str, ...] = ()
    aside: str = ""
    above: str = ""

    def directives(self) -> list[str]:
        if self.unavailable_for is not None:
            return [f"add_header Retry-After {self.unavailable_for} always;", "return 503;"]
        if self.redirect_to is not None:
            return [f"return 302 {self.redirect_to}$request_uri;"]
        rate = [f"limit_rate {self.limit_rate};"] if self.limit_rate is not None else []
        return [*self.lines, *rate] + ([f"max_ranges {self.max_ranges};"] if self.max_ranges is not None else [])


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx with the same files at both addresses, which have no final slash."""

    url: str
    tls_url: str
    workspace: Path

    def requests(self) -> list[str]:
        """Return a line for each request, in order of completion: `METHOD URI STATUS BODY-BYTES "RANGE"`."""
        return (self.workspace / "access.log").read_text().splitlines()

    def error_log(self) -> str:
        return (self.workspace / "error.log").read_text()


_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {workspace}/pid;
error_log {workspace}/error.log notice;
{user}
events {{ worker_connections 512; }}
http {{
    log_format requests '$request_method $request_uri $status $body_bytes_sent "$http_range"';
    access_log {workspace}/access.log requests;
    default_type application/octet-stream;
    sendfile on;
    client_body_temp_path {workspace}/temporary;
    proxy_temp_path {workspace}/temporary;
    fastcgi_temp_path {workspace}/temporary;
    uwsgi_temp_path {workspace}/temporary;
    scgi_temp_path {workspace}/temporary;
    {above}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {workspace}/chain.pem;
        ssl_certificate_key {workspace}/key.pem;
        root {directory};
        location / {{
            {directives}
        }}
        {aside}
    }}
}}
"""


@contextmanager
def running_nginx(
    directory: Path, workspace: Path, *, authority: trustme.CA, behaviour: Behaviour | None = None
) -> Iterator[Nginx]:
    """Serve `directory` until the block ends. `authority` signs the certificate for localhost and 127.0.0.1.

    Prints the error log when nginx stops; pytest shows it with a failed test.
    """
    executable = program("nginx", package="nginx-light")
    workspace.mkdir(parents=True)
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(workspace / "key.pem")
    for link in certificate.cert_chain_pems:
        link.write_to_path(workspace / "chain.pem", append=True)
    with _listening() as plain, _listening() as tls:
        ports = plain.getsockname()[1], tls.getsockname()[1]
        (workspace / "nginx.conf").write_text(_configuration(directory, workspace, ports, behaviour or Behaviour()))
        process = _started(executable, workspace, plain, tls)
    server = Nginx(f"http://127.0.0.1:{ports[0]}", f"https://localhost:{ports[1]}", workspace)
    try:
        wait_until(lambda: (workspace / "pid").exists() or process.poll() is not None, "nginx is up")
        if process.poll() is not None:
            raise AssertionError(f"nginx did not start: {server.error_log()}")
        yield server
    finally:
        stop(process)
        print(f"nginx at {server.url}:\n{server.error_log()}")


def _listening() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=511)
    listener.setblocking(False)  # nginx inherits the flag with the socket and relies on it
    return listener


def _configuration(directory: Path, workspace: Path, ports: tuple[int, int], behaviour: Behaviour) -> str:
    return _CONFIGURATION.format(
        workspace=workspace,
        directory=directory,
        port=ports[0],
        tls_port=ports[1],
        user="user root;" if os.geteuid() == 0 else "",
        directives="\n            ".join(behaviour.directives()),
        aside=behaviour.aside,
        above=behaviour.above.replace("WORKSPACE", str(workspace)),
    )


def _started(executable: str, workspace: Path, *listeners: socket.socket) -> subprocess.Popen[bytes]:
    descriptors = [listener.fileno() for listener in listeners]
    return subprocess.Popen(
        [executable, "-p", str(workspace), "-e", str(workspace / "error.log"), "-c", str(workspace / "nginx.conf")],
        env={**os.environ, "NGINX": "".join(f"{descriptor};" for descriptor in descriptors)},
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate nginx. Kill the whole session on a timeout, so that no worker outlives its master."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
