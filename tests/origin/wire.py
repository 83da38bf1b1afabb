"""A minimal client that shows exactly what the server sent, valid or not."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PATIENCE = 5.0
"""Seconds without data after which a test fails."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response. `body` is shorter than the Content-Length if the server broke off; `ending` says how."""

    status: int
    headers: dict[str, str]
    body: bytes
    ending: str


class Wire:
    """A client that keeps one connection to each origin and closes them at the end."""

    def __init__(self, trust: ssl.SSLContext | None = None) -> None:
        self._trust = trust
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for connection in self._sockets.values():
            connection.close()

    def get(self, address: str, *, method: str = "GET", **headers: str) -> Reply:
        """Send one request; underscores in header names mean hyphens. Raises ConnectionResetError, EOFError."""
        parts = urlsplit(address)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection = self.connection(address)
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return self._reply(connection, has_body=method != "HEAD")

    def ranged(self, address: str, start: int, stop: int) -> Reply:
        return self.get(address, Range=f"bytes={start}-{stop - 1}")

    def connection(self, address: str) -> socket.socket:
        parts = urlsplit(address)
        place = (parts.hostname or "", parts.port or 80)
        if place not in self._sockets:
            plain = socket.create_connection(place, timeout=PATIENCE)
            wrapped = self._trust.wrap_socket(plain, server_hostname=place[0]) if self._trust else plain
            self._sockets[place] = wrapped
        return self._sockets[place]

    def _reply(self, connection: socket.socket, *, has_body: bool) -> Reply:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = connection.recv(1)
            if not byte:
                raise EOFError(f"connection closed after {len(head)} bytes of the head")
            head += byte
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0")) if has_body else 0
        body, ending = receive(connection, length)
        return Reply(int(first.split()[1]), headers, body, ending)


def receive(connection: socket.socket, length: int) -> tuple[bytes, str]:
    """Return up to `length` bytes and how they ended: `complete`, `fin`, `reset` or `silence`."""
    body = b""
    while len(body) < length:
        try:
            piece = connection.recv(length - len(body))
        except ConnectionResetError:
            return body, "reset"
        except TimeoutError:
            return body, "silence"
        if not piece:
            return body, "fin"
        body += piece
    return body, "complete"
