"""A proxy that tunnels TLS, like the proxy of a company network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from socketserver import StreamRequestHandler, ThreadingTCPServer

_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy. `tunnels` are the requested targets, as `HOST:PORT`, in order; `passwords` are the credentials sent.

    `ends`: where the tunnels to some targets really end, a port of loopback for each.
    """

    url: str
    ends: Mapping[str, int] = field(default_factory=dict)
    tunnels: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)


@contextmanager
def running_proxy(ends: Mapping[str, int] | None = None) -> Iterator[Proxy]:
    """Run a proxy on loopback until the block ends."""
    with _Server(("127.0.0.1", 0), _Tunnel) as server:
        proxy = server.proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", ends or {})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True, name="proxy")
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: Proxy


class _Tunnel(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode().split()
        assert method == "CONNECT"
        while line := self.rfile.readline().strip():
            name, _, value = line.decode().partition(": ")
            if name.lower() == "proxy-authorization":
                self.server.proxy.passwords.append(value)
        self.server.proxy.tunnels.append(target)
        host, _, port = target.rpartition(":")
        end = self.server.proxy.ends.get(target)
        with socket.create_connection((host, int(port)) if end is None else ("127.0.0.1", end)) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_relay, args=(upstream, self.connection), daemon=True)
            back.start()
            _relay(self.connection, upstream)
            back.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
