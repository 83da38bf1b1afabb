"""A server between a source and the real store: it forwards requests, or answers itself what the store cannot be made to."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Mapping[str, str], bytes]
Rule = Callable[["Asked"], Reply | None]
_NOT_FORWARDED = {"host", "connection", "content-length", "transfer-encoding", "date", "server"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. The names of its headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Between:
    """`rule` answers a request, or returns None: then `behind` does. `asked` holds all requests."""

    behind: str
    endpoint: str = ""
    rule: Rule = lambda asked: None
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return self.rule(asked) or self._forwarded(asked)

    def _forwarded(self, asked: Asked) -> Reply:
        headers = {name: value for name, value in asked.headers.items() if name not in _NOT_FORWARDED}
        request = urllib.request.Request(self.behind + asked.target, method=asked.method, headers=headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as got:
                return got.status, dict(got.headers), got.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, dict(refused.headers), refused.read()


@contextmanager
def between(behind: str, *, tls: ssl.SSLContext | None = None) -> Iterator[Between]:
    """Run a server in front of the origin `behind`, on a port of its own, until the end of the block; with `tls` over TLS."""
    played = Between(behind)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            sent = self.rfile.read(int(headers.get("content-length", 0)))
            status, told, body = played.answer(Asked(self.command, self.path, headers, sent))
            self.send_response_only(status)
            for name, value in told.items():
                if name.lower() not in _NOT_FORWARDED:
                    self.send_header(name, value)
            length = told.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments: Any) -> None:
            """Clients that were killed, and stores that have ended, are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    played.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
