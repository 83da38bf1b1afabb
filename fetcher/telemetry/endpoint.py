"""Metrics over HTTP while a command runs: /metrics, /healthz for a liveness probe, and the pages that a command adds.

The server shows counts only, no paths and no names, so it can listen where Prometheus and the kubelet reach it.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.telemetry.exposition import OPENMETRICS, TEXT, Metric, exposition
from fetcher.values import dataclass

_MOST_CLIENTS = 16
_TIMEOUT = 5.0
"""Seconds for a client to send its request. With the number of clients it bounds the resources that strangers can hold."""

_PLAIN = "text/plain; charset=utf-8"
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status code and a line of text."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Site:
    """The content of the server. Both callables are called by its threads at each request."""

    metrics: Callable[[], Iterable[Metric]]
    pages: Mapping[str, Callable[[], Answer]]

    @property
    def paths(self) -> tuple[str, ...]:
        return ("/metrics", "/healthz", *self.pages)


@contextmanager
def serving(address: str | None, port: int, site: Site) -> Iterator[str]:
    """Serve `site` until the block ends; provides the base URL. Raises ConfigurationError if it cannot listen."""
    try:
        server = _listening(address, port, site)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
        where = f"{address or 'any address'}, port {port}"
        raise ConfigurationError(f"cannot listen on {where}: {problem}; choose another address or port") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True, name="endpoint")
    thread.start()
    try:
        host, bound = server.socket.getsockname()[:2]
        yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
    finally:
        server.shutdown()
        server.server_close()


def _listening(address: str | None, port: int, site: Site) -> _Server:
    if address is not None:
        return _Server(socket.AF_INET6 if ":" in address else socket.AF_INET, address, port, site)
    try:
        return _Server(socket.AF_INET6, "::", port, site)
    except OSError as error:
        if error.errno not in _NO_SUCH_FAMILY:
            raise
        return _Server(socket.AF_INET, "0.0.0.0", port, site)  # noqa: S104 - probes use the pod's address


class _Server(ThreadingTCPServer):
    """A TCP server with a limit on clients. http.server's own class asks DNS for the name of this host."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: str, port: int, site: Site) -> None:
        self.address_family = family
        self.site = site
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
        """Stay silent: a client may hang up at any time."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT
    server_version = "weightlift"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        site, path = self.server.site, self.path.partition("?")[0]
        if path == "/metrics":
            openmetrics = "application/openmetrics-text" in self.headers.get("Accept", "")
            self._send(200, OPENMETRICS if openmetrics else TEXT, exposition(site.metrics(), openmetrics=openmetrics))
        elif path == "/healthz":
            self._send(200, _PLAIN, "alive\n")
        elif path in site.pages:
            answer = site.pages[path]()
            self._send(answer.code, _PLAIN, answer.text + "\n")
        else:
            self._send(404, _PLAIN, f"not found; try {', '.join(site.paths)}\n")

    def _send(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Stay silent: probes come every second."""
