"""What `loader pin` says over HTTP: /metrics, /ready for a readiness probe, /healthz for a liveness probe.

It tells counts of bytes and nothing else, no path and no name, so it may listen where the kubelet reaches it.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.telemetry.exposition import OPENMETRICS, TEXT, exposition
from fetcher.telemetry.wording import share, size
from loader.cli.metrics import metrics
from loader.pinning import State

_MOST_CLIENTS = 16
_PATIENCE = 5.0
"""Seconds for a client to say what it wants. With the number of clients it bounds what strangers can occupy."""

_PLAIN = "text/plain; charset=utf-8"
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@contextmanager
def serving(address: str | None, port: int, state: Callable[[], State]) -> Iterator[str]:
    """Answer until the block ends; gives the address. Raises ConfigurationError where it can't listen."""
    try:
        server = _listening(address, port, state)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"cannot listen on {address or 'any address'}, port {port}: {problem}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True, name="endpoint")
    thread.start()
    try:
        host, bound = server.socket.getsockname()[:2]
        yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
    finally:
        server.shutdown()
        server.server_close()


def _listening(address: str | None, port: int, state: Callable[[], State]) -> _Server:
    if address is not None:
        return _Server(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port, state)
    try:
        return _Server(socket.AF_INET6, "::", port, state)
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            raise
        return _Server(socket.AF_INET, "0.0.0.0", port, state)  # noqa: S104 - probes come to the pod's address


class _Server(ThreadingTCPServer):
    """Not http.server's, which asks DNS for the name of this host."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: str, port: int, state: Callable[[], State]) -> None:
        self.address_family = family
        self.state = state
        self._free = threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            with suppress(OSError):  # one socket for both families
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    server_version = "loader"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = self.server.state()
        match self.path.partition("?")[0]:
            case "/metrics":
                openmetrics = "application/openmetrics-text" in self.headers.get("Accept", "")
                self._send(200, OPENMETRICS if openmetrics else TEXT, exposition(metrics(state), openmetrics=openmetrics))
            case "/ready":
                known = f"{share(state.resident, state.total)} of {size(state.total)} in memory\n"
                self._send(200 if state.ready else 503, _PLAIN, known)
            case "/healthz":
                self._send(200, _PLAIN, "alive\n")
            case _:
                self._send(404, _PLAIN, "there are /metrics, /ready and /healthz\n")

    def _send(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A probe every second is no news either."""
