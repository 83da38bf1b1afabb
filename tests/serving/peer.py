"""A client of one connection, which can also send what no client should."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    fields: Mapping[str, str]
    body: bytes


class _Stream(io.BufferedReader):
    """What came on one connection. An HTTPResponse reads ahead, and closes what it reads from: the next answer needs both."""

    def close(self) -> None:
        """Stay open."""

    def makefile(self, *_: object) -> _Stream:
        """Be the socket that an HTTPResponse expects."""
        return self


class Peer:
    """One connection to the server at the base URL `where`. `trusting`: the certificates of its authority."""

    def __init__(
        self,
        where: str,
        *,
        trusting: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        buffer: int | None = None,
        source: str | None = None,
    ) -> None:
        """`buffer`: bytes that the kernel receives for a peer that does not read. `source`: its own address."""
        parts = urlsplit(where)
        self._socket = socket.socket(socket.AF_INET6 if ":" in str(parts.hostname) else socket.AF_INET)
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.settimeout(_TIMEOUT)
        try:
            if source is not None:
                self._socket.bind((source, 0))
            self._socket.connect((parts.hostname, parts.port))
        except OSError:
            self._socket.close()
            raise
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(trusting) if trusting else None)
            if certificate is not None:
                context.load_cert_chain(*certificate)
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)
        self._stream = _Stream(socket.SocketIO(self._socket, "r"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate."""
        return self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None

    def get(self, target: str, method: str = "GET", **fields: str) -> Answer:
        """Ask for `target`; `fields` by name, with _ for -."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        self.send("\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1"))
        return self.receive(method)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, method: str = "GET") -> Answer:
        """Return the next answer. Raises http.client.HTTPException if it is cut off."""
        response = HTTPResponse(self._stream, method=method)  # type: ignore[arg-type]  # of a socket it needs makefile only
        response.begin()
        return Answer(response.status, dict(response.headers), response.read())

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, b"" at the end."""
        return self._stream.read1(count)

    def ended(self) -> bool:
        """Read to the end of the connection. Returns False if it stays open for the whole timeout."""
        try:
            while self._stream.read1(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True
